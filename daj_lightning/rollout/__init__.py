"""Prompts in, text and token log-probabilities out."""

from daj_lightning.rollout.endpoint import ChatEndpoint, Reply
from daj_lightning.rollout.engine import Rollout, RolloutEngine, Sampling
from daj_lightning.rollout.transformers_engine import TransformersEngine

__all__ = ["ChatEndpoint", "Reply", "Rollout", "RolloutEngine", "Sampling", "TransformersEngine"]
