"""What GRPO trains on: the judge's own responses, drawn while it trains, and checked to be its own.

Version w of the policy is the judge after w inner steps. A window's groups are drawn by its own version, or, with
`overlap`, by the one before while the judge trained. The meta groups are either drawn beside them, at phi, and
importance-weighted at phi' (`meta="reweighted"`), or drawn anew at phi' (`meta="fresh"`), which costs a sync and a
wait more a window.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from transformers import PreTrainedTokenizerBase

from daj_lightning.data import JudgeData, PromptDataset, SampleStream
from daj_lightning.judge import Judge, Reward, SelectionReward, decode
from daj_lightning.records import BilevelBatch, DajError, JudgeBatch, PromptBatch
from daj_lightning.rollout import Rollout, RolloutEngine, RolloutError, Sampling, TransformersEngine
from daj_lightning.training.answer import policy_of
from daj_lightning.training.groups import Group, batch_of, groups_of, spread, statistics
from daj_lightning.training.identity import TOLERANCE_NATS, check_identity, token_difference

_PROBE_TOKENS = 64
_CLOSE_S = 10.0


Meta = Literal["reweighted", "fresh"]
FlatGroups = Literal["keep", "skip", "replace"]


class CloseRollouts(Callback):
    """Stops the engine when a run breaks off; the module brings it along."""

    def __init__(self, rollouts: Rollouts) -> None:
        self.rollouts = rollouts

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        try:
            self.rollouts.close()
        except RolloutError as error:  # what broke the run is the news, and its state is still to be saved
            rank_zero_warn(f"the rollout engine did not close: {error}", stacklevel=2)


class _Answers(NamedTuple):
    """Rollouts of one window: for each prompt of its inner samples, then of its meta samples if these are drawn too."""

    inner: list[list[Rollout]]
    meta: list[list[Rollout]] | None
    seconds: float


class Rollouts:
    """Draws groups of responses, judges them, and checks whose they are.

    Args:
        engine: who generates; the transformers model in this process unless given.
        reward: of a response; Eq. 1 of the paper unless given.
        group_size: G, responses that are compared with each other (paper: 16).
        max_new_tokens: of a response.
        temperature: of the draws; top-p and top-k stay off, so that log-probabilities are of what was drawn from.
        consistency_reward: added where the responses of one number to both orders of the candidates are right (J1);
            needs data.both_orders.
        meta: "reweighted" draws the meta groups at phi and weights them by importance at phi'; "fresh" draws them
            at phi', for one more sync and generation a meta batch. Ratios are clipped as in training.
        flat_groups: a group whose responses all earned the same is kept, skipped (no pass, no gradient, not even of
            the pull to the reference) or replaced by groups of further prompts.
        max_replacements: rounds of further prompts a window; what is flat then is kept.
        mask_truncated: leaves the tokens of responses that met `max_new_tokens` out of the loss (DAPO, Yu et al. 2025).
        overlap: draws the next window's groups while this one trains; they are one version old. Not with "fresh".
        num_checked: responses whose log-probabilities are computed again at every draw; with overlap, of short ones
            that are drawn for this after every sync.
        tolerance: nats by which these may be off on average; by the base's precision unless given.
    """

    def __init__(
        self,
        engine: RolloutEngine | None = None,
        reward: Reward | None = None,
        group_size: int = 16,
        max_new_tokens: int = 1024,
        temperature: float = 1.0,
        consistency_reward: float = 0.0,
        meta: Meta = "reweighted",
        flat_groups: FlatGroups = "keep",
        max_replacements: int = 3,
        mask_truncated: bool = False,
        overlap: bool = False,
        num_checked: int = 4,
        tolerance: float | None = None,
    ) -> None:
        self.engine = engine or TransformersEngine()
        if group_size < 2 or temperature <= 0 or num_checked < 1 or max_replacements < 1 or consistency_reward < 0:
            raise DajError(
                f"model.rollouts needs group_size >= 2, temperature > 0, num_checked >= 1, max_replacements >= 1 and "
                f"consistency_reward >= 0; got {group_size}, {temperature}, {num_checked}, {max_replacements} and "
                f"{consistency_reward}."
            )
        if meta not in get_args(Meta) or flat_groups not in get_args(FlatGroups):
            raise DajError(
                f"model.rollouts.meta is one of {get_args(Meta)} and flat_groups one of {get_args(FlatGroups)}; got "
                f"{meta!r} and {flat_groups!r}."
            )
        if overlap and not self.engine.overlaps:
            raise DajError(
                f"model.rollouts.overlap: {type(self.engine).__name__} cannot generate while the judge trains. Use "
                f"VllmServer, or leave overlap out."
            )
        if overlap and meta == "fresh":
            raise DajError(
                "model.rollouts: meta='fresh' tells the engine of the moved judge in the middle of a window, while "
                "with overlap it draws the next one's groups. Use meta='reweighted', or leave overlap out."
            )
        self.reward = reward or SelectionReward()
        self.group_size = group_size
        self.sampling = Sampling(max_new_tokens, temperature)
        self.consistency_reward = consistency_reward
        self.meta = meta
        self.flat_groups = flat_groups
        self.max_replacements = max_replacements
        self.mask_truncated = mask_truncated
        self.overlap = overlap
        self.num_checked = num_checked
        self.tolerance = tolerance
        self.version: int | None = None
        """The engine's; None: it has to be told, as after every resume."""
        self.log: dict[str, float] = {}
        """Of the last draw, for loggers."""
        self._pending: Future[_Answers] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def start(self, judge: Judge, tokenizer: PreTrainedTokenizerBase, data: JudgeData) -> None:
        """Connect the engine to the judge.

        Raises:
            DajError: group and questions do not fit together, or the prompts do not fit the model.
        """
        orders = 2 if data.both_orders else 1
        if self.group_size % orders or (self.consistency_reward and orders == 1):
            raise DajError(
                f"group_size={self.group_size} has to be even with data.both_orders, and consistency_reward="
                f"{self.consistency_reward} needs data.both_orders, which is {data.both_orders}."
            )
        context = getattr(judge.causal_lm.config, "max_position_embeddings", None)
        if context is not None and data.max_length > context:
            raise DajError(
                f"data.max_length={data.max_length} lets prompt and response be longer than the model, which reads "
                f"{context} tokens. Lower it."
            )
        if self.engine.needs_adapters and judge.trains == "everything":
            raise DajError(
                f"{type(self.engine).__name__} is told of a new policy by its adapters, and model.judge trains "
                f"everything. Train adapters, or use TransformersEngine."
            )
        self.judge, self.tokenizer, self.data = judge, tokenizer, data
        self.sampling = replace(self.sampling, num_samples=self.group_size // orders)
        self.nats = TOLERANCE_NATS[judge.base_dtype] if self.tolerance is None else self.tolerance
        self.version, self._pending = None, None
        self.engine.connect(policy_of(judge, tokenizer))
        self._thread = ThreadPoolExecutor(1) if self.overlap else None

    def close(self) -> None:
        if self._pending is not None and not self._pending.cancel():
            wait([self._pending], timeout=_CLOSE_S)  # a server keeps the adapter of a request that is under way
        if self._thread is not None:
            self._thread.shutdown(wait=False)
        self.engine.close()

    def description(self) -> dict[str, Any]:
        """What must not change between a run and its resumption."""
        return {
            "rollouts": f"{self.group_size} x {self.sampling.max_new_tokens} at {self.sampling.temperature}, meta "
            f"{self.meta}, flat {self.flat_groups} in {self.max_replacements}, masked {self.mask_truncated}, "
            f"consistency {self.consistency_reward}, overlap {self.overlap}",
            "reward": type(self.reward).__name__,
        }

    # A window --------------------------------------------------------------------------------------

    def draw(
        self, batch: BilevelBatch, number: int, meta_is_due: Callable[[int], bool]
    ) -> tuple[JudgeBatch, JudgeBatch | PromptBatch]:
        """The window's groups, and the meta groups unless they are to be fresh; prompts that nothing asks for stay.

        Args:
            number: of the window: the inner steps that the judge has taken.
            meta_is_due: whether a window has a meta batch.
        """
        self.log = {}
        meta_wanted = self.meta == "reweighted" and meta_is_due(number)
        if self._pending is not None:
            answers, self._pending = self._pending.result(), None
        else:
            self._sync(number)
            answers = self._generate(batch, number, meta_wanted)
        assert isinstance(batch.inner, PromptBatch)
        assert isinstance(batch.meta, PromptBatch)
        inner = self._groups(batch.inner, answers.inner)
        self.log |= {f"rollout/{name}": value for name, value in statistics(inner).items()}  # as the policy is
        self.log["rollout/generate_s"] = answers.seconds
        self.log["rollout/staleness"] = number - inner[0].rollouts[0].policy_version
        if self.flat_groups == "replace":
            inner = self._with_spread(inner, number)
        drawn = self._batch(inner, number)
        if drawn.old_logp is None:  # of the judge as it is
            self._check(inner, number)
        if self.overlap and number + 1 < self.data.max_windows:
            self._begin_next(number + 1, meta_is_due)
        if answers.meta is None:
            return drawn, batch.meta
        groups = self._groups(batch.meta, answers.meta)
        self.log["meta/reward"] = statistics(groups)["reward"]
        return drawn, self._batch(groups, number)

    def moved(self, meta: JudgeBatch | PromptBatch, number: int) -> JudgeBatch:
        """The meta batch for the judge after the inner step of window `number`."""
        if isinstance(meta, JudgeBatch):
            return meta
        self._sync(number + 1)
        start = time.perf_counter()
        groups = self._groups(meta, self.engine.generate(_flat(meta), self._seeded(number, "meta")))
        self._check(groups, number + 1)
        self.log["meta/reward"] = statistics(groups)["reward"]
        self.log["meta/generate_s"] = time.perf_counter() - start
        return self._batch(groups, number + 1)

    def measure(self, prompts: PromptBatch, number: int) -> JudgeBatch:
        """Groups beside training, of the judge as it is; the draws do not depend on when they are asked for."""
        self._sync(number)
        groups = self._groups(prompts, self.engine.generate(_flat(prompts), self._seeded(0, "measured")))
        self._check(groups, number)
        return self._batch(groups, number)

    # Its parts -------------------------------------------------------------------------------------

    def _sync(self, version: int) -> None:
        if self.version == version:
            return
        start = time.perf_counter()
        self.engine.sync(version)
        self.version = version
        self.log["rollout/sync_s"] = time.perf_counter() - start

    def _generate(self, batch: BilevelBatch, number: int, with_meta: bool) -> _Answers:
        assert isinstance(batch.inner, PromptBatch)
        assert isinstance(batch.meta, PromptBatch)
        start = time.perf_counter()
        prompts = _flat(batch.inner)
        every = [*prompts, *(_flat(batch.meta) if with_meta else [])]
        rollouts = self.engine.generate(every, self._seeded(number, "window"))
        meta = rollouts[len(prompts) :] if with_meta else None
        return _Answers(rollouts[: len(prompts)], meta, time.perf_counter() - start)

    def _begin_next(self, number: int, meta_is_due: Callable[[int], bool]) -> None:
        """Sync, prove it by a few tokens, and leave the next window's prompts to the engine."""
        assert self._thread is not None
        self._sync(number - 1)
        batch = self.data.window(number)
        assert isinstance(batch.inner, PromptBatch)
        probe = PromptBatch(*(getattr(batch.inner, name)[: self.num_checked] for name in PromptBatch.__slots__))
        length = min(_PROBE_TOKENS, self.sampling.max_new_tokens)
        few = replace(self._seeded(number, "probe"), max_new_tokens=length, num_samples=1)
        self._check(self._groups(probe, self.engine.generate(_flat(probe), few)), number - 1)
        wanted = self.meta == "reweighted" and meta_is_due(number)
        self._pending = self._thread.submit(self._generate, batch, number, wanted)

    def _groups(self, prompts: PromptBatch, rollouts: Sequence[Sequence[Rollout]]) -> list[Group]:
        return groups_of(
            prompts, rollouts, lambda ids: decode(self.tokenizer, ids), self.reward, self.consistency_reward
        )

    def _with_spread(self, groups: list[Group], number: int) -> list[Group]:
        """Further prompts in place of flat groups, round by round; a function of the window alone."""
        dataset = self.data.train_set
        assert isinstance(dataset, PromptDataset)
        stream = SampleStream(len(dataset), self.data.seed, "replacements")
        for attempt in range(self.max_replacements):
            flat = [i for i, group in enumerate(groups) if group.is_flat]
            if not flat:
                break
            start = (number * self.max_replacements + attempt) * len(groups)
            prompts = dataset.batch(stream.take(start, len(flat)))
            rollouts = self.engine.generate(_flat(prompts), self._seeded(number, f"replacement {attempt}"))
            for i, group in zip(flat, self._groups(prompts, rollouts), strict=True):
                groups[i] = group
            self.log["rollout/replaced"] = self.log.get("rollout/replaced", 0) + len(flat)
        return groups

    def _batch(self, groups: Sequence[Group], number: int) -> JudgeBatch:
        def is_masked(group: Group, rollout: Rollout) -> bool:
            too_long = self.mask_truncated and rollout.finish_reason == "length"
            return too_long or (self.flat_groups == "skip" and group.is_flat)

        device = self.judge.policy.device
        batch = batch_of(groups, self.sampling.temperature, self.tokenizer.pad_token_id, is_masked).to(device)
        stale = any(rollout.policy_version != number for group in groups for rollout in group.rollouts)
        return replace(batch, old_logp=batch.sampled_logp) if stale else batch

    def _check(self, groups: Sequence[Group], version: int) -> None:
        """The policy identity check, on whatever the judge as it is has drawn, masked or not."""
        few = spread(groups, self.num_checked)
        batch = batch_of(few, self.sampling.temperature, self.tokenizer.pad_token_id, lambda *_: False)
        batch = batch.to(self.judge.policy.device)
        difference = token_difference(self.judge, batch)
        with self.judge.reference():
            to_reference = token_difference(self.judge, batch)
        check_identity(difference, to_reference, version, self.nats)
        self.log["rollout/mismatch"] = float(difference.mean())
        self.log["rollout/mismatch_max"] = float(difference.max())

    def _seeded(self, number: int, what: str) -> Sampling:
        digest = hashlib.sha256(f"{self.data.seed}/{number}/{what}".encode()).digest()
        return replace(self.sampling, seed=int.from_bytes(digest[:4]) >> 1)


def _flat(prompts: PromptBatch) -> list[tuple[int, ...]]:
    return [prompt for own in prompts.prompts for prompt in own]
