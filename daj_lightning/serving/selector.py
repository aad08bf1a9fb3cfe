"""An exported judge that picks programs, for one problem or for many that share its batches."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from daj_lightning.data.comparisons import compare
from daj_lightning.data.frozen import start
from daj_lightning.judge import Dialogues, Selection, Strategy, decode, encode_prompt, judge_response
from daj_lightning.judge.selection import Pair
from daj_lightning.records import Candidate, DajError, Judgment, Problem
from daj_lightning.rollout import RolloutEngine, Sampling, TransformersEngine, VllmServer
from daj_lightning.serving.export import load_exported
from daj_lightning.serving.judgments import Judgments, Known, Question
from daj_lightning.serving.screening import Screener, Screening, unscreened


@dataclass(frozen=True, slots=True)
class Choice:
    """What became of one problem."""

    selection: Selection
    """Places and votes are among all candidates, whoever was out before."""
    screening: Screening
    judgments: tuple[Judgment, ...]
    """Answers that were given now; not those that a journal remembered."""
    num_remembered: int
    num_too_long: int
    """Comparisons whose prompt does not fit; they count as invalid."""


class Selector:
    """An exported judge that picks programs.

    Args:
        directory: written by `export`.
        strategy: which comparisons it is asked for, and who wins.
        batch_size: comparisons answered together.
        engine: who runs the judge; closed with the selector. None: the model in this process.
        screener: the hybrid: who fails a public test is out. None: the judge alone.
    """

    def __init__(
        self,
        directory: str | Path,
        strategy: Strategy,
        batch_size: int = 16,
        engine: RolloutEngine | None = None,
        screener: Screener | None = None,
    ) -> None:
        if batch_size < 1:
            raise DajError(f"batch_size={batch_size} must be >= 1.")
        self.strategy = strategy
        self.batch_size = batch_size
        self.screener = screener
        self.engine = engine or TransformersEngine(batch_size)
        self.policy, self.tokenizer, self.template, self.sampling, context = load_exported(
            directory, self.engine.needs_weights
        )
        self.max_prompt_tokens = context - self.sampling.max_new_tokens if context else None
        if self.max_prompt_tokens is not None and self.max_prompt_tokens < 1:
            raise DajError(
                f"{str(directory)!r} has a context of {context} tokens, and max_new_tokens="
                f"{self.sampling.max_new_tokens} leaves no prompt. Lower max_new_tokens in its daj.json."
            )
        self._longest_token = max(map(len, self.tokenizer.get_vocab()))
        start(self.engine, self.policy)

    def close(self) -> None:
        """End what the engine started."""
        self.engine.close()

    def select(self, problem: Problem, candidates: Sequence[Candidate]) -> Selection:
        """One of the candidates of one problem."""
        return self.select_all([(problem, candidates)])[0]

    def select_all(self, groups: Sequence[tuple[Problem, Sequence[Candidate]]]) -> list[Selection]:
        """One of each problem's candidates; the comparisons of all problems share batches."""
        screenings = self.screener.screen(groups) if self.screener else (unscreened(c) for _, c in groups)
        docket = Docket(self)
        keys = [docket.add(*group, screening) for group, screening in zip(groups, screenings, strict=True)]
        chosen: dict[str, Choice] = {}
        while docket:
            chosen |= docket.step()
        return [chosen[key].selection for key in keys]

    def ask(self, questions: Sequence[Question]) -> list[Judgment | None]:
        """The judge's answers, in order; None where the prompt leaves it no room for one, and nothing is asked.

        The engine sees the questions of a problem side by side, and those with the same first candidate too: what
        their prompts begin with in common, an engine with a prefix cache computes once.
        """
        seen: dict[str, int] = {}
        places = [seen.setdefault(question.comparison.problem_id, len(seen)) for question in questions]
        order = sorted(range(len(questions)), key=lambda k: (places[k], questions[k].comparison.candidate_ids))
        prompts = {k: encode_prompt(self.tokenizer, questions[k].comparison.prompt) for k in order}
        fits = [k for k in order if self.max_prompt_tokens is None or len(prompts[k]) <= self.max_prompt_tokens]
        judgments: list[Judgment | None] = [None] * len(questions)
        rollouts = self.engine.generate([prompts[k] for k in fits], self._sampling(questions)) if fits else []
        for k, group in zip(fits, rollouts, strict=True):
            judgments[k] = judge_response(questions[k].comparison, decode(self.tokenizer, group[0].text_ids))
        return judgments

    def _sampling(self, questions: Sequence[Question]) -> Sampling:
        # One seed for all batches would answer a pair that is asked again with the same draws.
        named = f"{self.strategy.seed}/{[question.key for question in questions]}"
        seed = int.from_bytes(hashlib.blake2b(named.encode("utf-8", "backslashreplace"), digest_size=4).digest())
        return dataclasses.replace(self.sampling, seed=seed)

    def misfit(self, problem: Problem, candidates: Sequence[Candidate]) -> str:
        """Why the judge cannot be asked about the two longest candidates: the lengths; empty if it can."""
        if self.max_prompt_tokens is None or len(candidates) < 2:
            return ""
        longest = sorted(candidates, key=lambda candidate: len(candidate.code))[-2:]
        prompt = self.template.fill(problem, longest)
        num_tokens = len(prompt) // self._longest_token  # at least; megabytes are not worth the counting
        counted = "at least "
        if num_tokens <= self.max_prompt_tokens:
            num_tokens, counted = len(encode_prompt(self.tokenizer, prompt)), ""
        if num_tokens <= self.max_prompt_tokens:
            return ""
        return (
            f"the prompt with the statement and the two longest candidates has {counted}{num_tokens} tokens; "
            f"{self.max_prompt_tokens} fit into the judge's context beside its answer"
        )


@dataclass
class _Case:
    """A problem under way."""

    problem: Problem
    candidates: Sequence[Candidate]
    screening: Screening
    only_recalled: bool
    asked: Counter[Pair] = field(default_factory=Counter)
    judgments: list[Judgment] = field(default_factory=list)
    num_remembered: int = 0
    num_too_long: int = 0


class Docket:
    """Problems under way together: a batch of their questions at a time, and the choices as they fall.

    Which questions share a batch is decided by the order in which problems join and by the answers alone, so that a
    run which remembers its answers goes through the same batches again.

    Args:
        selector: who is asked.
        memory: answers that need no asking, and where new ones go. None: neither.
    """

    def __init__(self, selector: Selector, memory: Judgments | None = None) -> None:
        self.selector = selector
        self.memory = memory
        self.last_asked: set[str] = set()
        """Problems that the last batch was about."""
        self._dialogues = Dialogues()
        self._cases: dict[str, _Case] = {}
        self._ready: dict[str, Selection] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._cases)

    def add(
        self, problem: Problem, candidates: Sequence[Candidate], screening: Screening, only_recalled: bool = False
    ) -> str:
        """Put a problem on; returns the key that `step` will name it by.

        Args:
            only_recalled: led as far as `memory` answers, then dropped: its selection is known, but a strategy that
                learns from problem to problem is to have seen it.
        """
        key = str(next(self._numbers))
        play = self.selector.strategy.play(len(screening.kept), problem.problem_id)
        self._cases[key] = _Case(problem, candidates, screening, only_recalled)
        selection = self._dialogues.start(key, play)
        if selection is not None:
            self._ready[key] = selection
        return key

    def drop(self, key: str) -> None:
        """Take a problem off, finished or not."""
        self._dialogues.drop(key)
        self._cases.pop(key, None)
        self._ready.pop(key, None)

    def step(self) -> dict[str, Choice]:
        """Answer one batch of questions; returns the problems that it settled, and those that needed none."""
        portion, questions, known = self._portion()
        new = [question for question, answer in zip(questions, known, strict=True) if answer is None]
        judgments = iter(self.selector.ask(new) if new else [])
        answers = []
        for (key, pair), question, recalled in zip(portion, questions, known, strict=True):
            case = self._cases[key]
            case.asked[pair] += 1
            if recalled is None:
                recalled = self._take(case, question, next(judgments))
            else:
                case.num_remembered += 1
            case.num_too_long += recalled.too_long
            answers.append(recalled.answer)
        finished = self._ready | self._dialogues.tell(portion, answers)
        self._ready = {}
        return {key: self._choice(self._cases.pop(key), selection) for key, selection in finished.items()}

    def _portion(self) -> tuple[list[tuple[str, Pair]], list[Question], list[Known | None]]:
        """The next questions with what is remembered of them; problems that may not be asked about are dropped."""
        while True:
            portion = self._dialogues.next(self.selector.batch_size)
            self.last_asked = {key for key, _ in portion}
            before: Counter[tuple[str, Pair]] = Counter()
            questions = []
            for key, pair in portion:
                questions.append(self._question(self._cases[key], pair, before[key, pair]))
                before[key, pair] += 1
            known = [self.memory.recall(question) if self.memory else None for question in questions]
            closed = {
                key
                for (key, _), answer in zip(portion, known, strict=True)
                if answer is None and self._cases[key].only_recalled
            }
            if not closed:
                return portion, questions, known
            for key in closed:
                self.drop(key)

    def _question(self, case: _Case, pair: Pair, before: int) -> Question:
        shown = [case.candidates[case.screening.kept[place]] for place in pair]
        unknown = {candidate.candidate_id: False for candidate in shown}  # passing is not known here
        comparison = compare(case.problem, shown, unknown, self.selector.template, "round")
        return Question(comparison, case.asked[pair] + before)

    def _take(self, case: _Case, question: Question, judgment: Judgment | None) -> Known:
        if self.memory:
            self.memory.keep(question, judgment)
        if judgment is None:
            return Known(None, too_long=True)
        case.judgments.append(judgment)
        return Known(judgment.selection, too_long=False)

    @staticmethod
    def _choice(case: _Case, selection: Selection) -> Choice:
        kept = case.screening.kept
        votes = [0.0] * len(case.candidates)
        for place, votes_of_place in zip(kept, selection.votes, strict=True):
            votes[place] = votes_of_place
        winner = None if selection.winner is None else kept[selection.winner]
        selection = dataclasses.replace(selection, winner=winner, votes=tuple(votes))
        return Choice(selection, case.screening, tuple(case.judgments), case.num_remembered, case.num_too_long)


def engine_named(name: str, vllm_python: str | None, batch_size: int | None) -> tuple[RolloutEngine | None, int]:
    """As the command line's options say: None for this process, and comparisons a batch."""
    if name == "vllm":
        return VllmServer(python=vllm_python), batch_size or 256
    if vllm_python is not None:
        raise DajError("--vllm_python is of no use without --engine vllm. Add that, or leave it out.")
    return None, batch_size or 16
