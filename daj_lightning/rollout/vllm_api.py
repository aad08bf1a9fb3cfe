"""The requests that a vLLM server is sent, and its answers checked."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from typing import Any

from daj_lightning.rollout.adapters import Adapter
from daj_lightning.rollout.completions import Wanted, read_answer, request_fields
from daj_lightning.rollout.engine import Rollout, RolloutError
from daj_lightning.rollout.supervisor import is_well
from daj_lightning.rollout.wire import Answer, ask

HOW = (
    "Start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment and the flags --enable-lora --max-loras 2 "
    "--max-lora-rank RANK --logprobs-mode processed_logprobs --generation-config vllm."
)


class Unreachable(RolloutError):
    """The server is gone: not an answer that is wrong, but none, and /health fails as well."""


class VllmApi:
    """A vLLM server at an address.

    Args:
        address: scheme, host and port.
        timeout_s: of requests other than rollouts.
    """

    def __init__(self, address: str, timeout_s: float) -> None:
        self.address = address
        self.timeout_s = timeout_s

    def is_well(self) -> bool:
        return is_well(self.address)

    def base(self, served_name: str | None) -> tuple[str, int]:
        """Name of the base that is served, and its max_model_len.

        Args:
            served_name: None: there must be only one.
        """
        answer = self._request("/v1/models")
        try:
            # Adapters that others loaded are listed too; they have a parent, and no length.
            models = [model for model in json.loads(answer.body)["data"] if not model["parent"]]
            lengths = {str(model["id"]): int(model["max_model_len"]) for model in models}
        except (ValueError, LookupError, TypeError) as error:
            raise RolloutError(f"{self.address}/v1/models answered {answer.words(200)!r}; is it vLLM?") from error
        names = list(lengths) if served_name is None else [served_name]
        if len(names) != 1 or names[0] not in lengths:
            raise RolloutError(
                f"{self.address} serves {sorted(lengths)}; wanted {served_name or 'one model'!r}. Set served_name of "
                f"the rollout engine, or start the server with the policy's base."
            )
        return names[0], lengths[names[0]]

    def check_adapters(self) -> None:
        """Whether adapters can be loaded while it runs."""
        answer = self._ask("/v1/load_lora_adapter", {}, self.timeout_s)
        if answer.status in (404, 405):
            raise RolloutError(f"{self.address} does not load adapters while it runs. {HOW}")

    def check_logprobs(self, name: str, vocab_size: int) -> None:
        """Whether log-probabilities are those that are drawn from.

        Of two tokens that are each the only one allowed, each has probability 1; as the model has them, not both. That
        the last one of the vocabulary is known tells more than nothing about the base.
        """
        for token in (0, vocab_size - 1):
            body = {
                "model": name,
                "prompt": [[0]],
                "max_tokens": 1,
                "temperature": 1.0,
                "allowed_token_ids": [token],
                "ignore_eos": True,
                "logprobs": 0,
                "return_tokens_as_token_ids": True,
            }
            answer = self._request("/v1/completions", body)
            try:
                (logp,) = json.loads(answer.body)["choices"][0]["logprobs"]["token_logprobs"]
                is_processed = abs(logp) < 1e-3
            except (ValueError, LookupError, TypeError) as error:
                raise RolloutError(f"{self.address} answered {answer.words(200)!r} to a test; is it vLLM?") from error
            if not is_processed:
                raise RolloutError(
                    f"{self.address} tells log-probabilities at temperature 1, whatever the temperature. {HOW}"
                )

    def load(self, adapter: Adapter) -> None:
        body = {"lora_name": adapter.name, "lora_path": str(adapter.path)}
        answer = self._ask("/v1/load_lora_adapter", body, self.timeout_s)
        if answer.status != 200:
            raise RolloutError(
                f"{self.address} did not load version {adapter.version} from {str(adapter.path)!r}: {answer.status} "
                f"{answer.words()}. It needs that directory, --enable-lora, and --max-lora-rank of the judge's lora_r."
            )

    def unload(self, adapter: Adapter) -> None:
        self._request("/v1/unload_lora_adapter", {"lora_name": adapter.name})

    def complete(
        self, prompts: Sequence[Sequence[int]], wanted: Wanted, timeout_s: float, hint: str
    ) -> list[list[Rollout]]:
        """Rollouts for each prompt.

        Args:
            hint: what to do where the answer takes too long.
        """
        body = {
            "model": wanted.name,
            "prompt": [list(prompt) for prompt in prompts],
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            **request_fields(wanted.sampling, wanted.eos_token_id),
        }
        return read_answer(self._request("/v1/completions", body, timeout_s, hint).body, prompts, wanted)

    def _request(
        self, path: str, body: dict[str, Any] | None = None, timeout_s: float | None = None, hint: str = "Is it well?"
    ) -> Answer:
        answer = self._ask(path, body, timeout_s or self.timeout_s, hint)
        if answer.status != 200:
            raise RolloutError(f"{self.address}{path} answered {answer.status}: {answer.words()}.")
        return answer

    def _ask(self, path: str, body: dict[str, Any] | None, timeout_s: float, hint: str = "Is it well?") -> Answer:
        """Any answer of a living server.

        Raises:
            Unreachable: there is none, and the server is dead or dying.
            RolloutError: there is none, though the server is well.
        """
        try:
            answer = ask(self.address, path, timeout_s, body)
        except TimeoutError as error:
            if self.is_well():
                raise RolloutError(f"{self.address}{path} did not answer within {timeout_s:g} s. {hint}") from error
            raise Unreachable(f"{self.address}{path} did not answer within {timeout_s:g} s, nor is it well.") from error
        except (OSError, http.client.HTTPException) as error:
            problem = str(error) or type(error).__name__
            raise Unreachable(f"{self.address}{path} cannot be reached: {problem}.") from error
        if answer.status >= 500 and not self.is_well():  # its engine died under it, and it is about to end
            raise Unreachable(f"{self.address}{path} answered {answer.status}: {answer.words()}, and is not well.")
        return answer
