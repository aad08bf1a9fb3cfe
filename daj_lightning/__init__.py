"""DAJ: train an LLM judge with learned data weights and let it pick the right program."""
