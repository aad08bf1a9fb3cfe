"""Candidates from a policy model: every problem is asked `num_samples` times, each answer becomes a row.

Rows are appended as they come, {candidate_id, problem_id, policy, code, response, finish_reason, sampling}; what
is in the file is not asked again. Each draw has a seed of its own, made of the run's seed, the problem and the
draw's number, so that a broken-off run goes on with the draws that an unbroken one would have made; but for
EnginePolicy's, which do not repeat. A row's `sampling` also names the model and has a digest of the prompt: a file is
gone on with by the same only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from rich.console import Console

from daj_lightning.data.candidates import ROW_BEGINS, ROW_KEYS, extract_code
from daj_lightning.data.frozen import frozen_policy, start
from daj_lightning.data.journal import Journal
from daj_lightning.data.jsonl import iterate_jsonl
from daj_lightning.data.progress import Meter
from daj_lightning.data.sanitize import sanitize
from daj_lightning.judge import encode_prompt, load_tokenizer
from daj_lightning.records import Candidate, DajError, Problem
from daj_lightning.rollout import ChatEndpoint, Reply, Rollout, RolloutEngine, Sampling, TransformersEngine

PAPER = Sampling(
    max_new_tokens=8192, temperature=0.7, top_p=0.8, num_samples=8, top_k=20, repetition_penalty=1.05
)  # App. A: how the policies' candidates were sampled
TASK = "Solve this programming problem in Python 3."
STDIN = (
    "Write a complete program. It reads the input from standard input and prints the answer, and nothing else, to "
    "standard output."
)
FUNCTIONAL = (
    "Complete the class below. Keep its name, its method and the method's parameters; read no input, print nothing."
)
UNIT_TESTS = (
    "Write a module that defines `{name}` as asked, with every import it needs. It does nothing when it is imported."
)
FORM = (
    "You may think first. End your answer with the whole solution in a single block that starts with ```python and "
    "ends with ```."
)


T = TypeVar("T")


class Ask(NamedTuple):
    """Some draws of one problem."""

    problem: Problem
    numbers: list[int]
    """Of `Sampling.num_samples`, from 0 on."""


class Policy(Protocol):
    """Whoever writes programs."""

    def draws(self, asks: Sequence[Ask], sampling: Sampling, stop: threading.Event) -> list[list[Reply]]:
        """The draws of each ask, in the order of its numbers; once `stop` is set, an error."""
        ...

    @property
    def settings(self) -> dict[str, str]:
        """Which model it is, whatever name its rows get, and what else of it its rows should tell."""
        ...

    @property
    def concurrency(self) -> int:
        """Calls of `draws` that may run at once; a single one runs in the caller's thread."""
        ...

    @property
    def num_asks(self) -> int:
        """Of one call of `draws`; only what it returns is kept where a run breaks off."""
        ...

    @property
    def draws_apart(self) -> bool:
        """Whether a draw is best asked for alone, rather than with the others of its problem."""
        ...

    def close(self) -> None:
        """Stop what the first call of `draws` started."""
        ...


class EndpointPolicy:
    """A model behind an endpoint, asked for `concurrency` programs at once."""

    draws_apart = True
    num_asks = 1

    def __init__(self, endpoint: ChatEndpoint, concurrency: int) -> None:
        if concurrency < 1:
            raise DajError(f"concurrency is {concurrency}; wanted at least 1 request at a time.")
        self.endpoint = endpoint
        self.concurrency = concurrency
        self.settings = {"model": endpoint.model}

    def draws(self, asks: Sequence[Ask], sampling: Sampling, stop: threading.Event) -> list[list[Reply]]:
        return [[self._draw(ask.problem, number, sampling, stop) for number in ask.numbers] for ask in asks]

    def _draw(self, problem: Problem, number: int, sampling: Sampling, stop: threading.Event) -> Reply:
        own = dataclasses.replace(sampling, num_samples=1, seed=seed_of(sampling, problem) + number)
        return self.endpoint.reply(prompt_for(problem), own, stop)

    def close(self) -> None:
        pass


class ModelPolicy:
    """A model in this process; draws all programs of a problem together."""

    draws_apart = False
    concurrency = 1
    num_asks = 1

    def __init__(self, model: str) -> None:
        self.base = _Base(model, TransformersEngine())
        self.settings = {"model": self.base.model}

    def draws(self, asks: Sequence[Ask], sampling: Sampling, stop: threading.Event) -> list[list[Reply]]:
        return [self._draw(ask, dataclasses.replace(sampling, seed=seed_of(sampling, ask.problem))) for ask in asks]

    def _draw(self, ask: Ask, sampling: Sampling) -> list[Reply]:
        (rollouts,) = self.base.engine.generate([self.base.encode(ask.problem)], sampling)
        return [self.base.reply(rollouts[number]) for number in ask.numbers]

    def close(self) -> None:
        self.base.close()


class EnginePolicy:
    """A model that any engine rolls out, asked about several problems at once and for nothing but what is missing.

    Its draws need not repeat: a draw's seed depends on what is asked with it, and vLLM takes none.

    Args:
        model: directory or hub name; an engine elsewhere loads it there and not here.
        engine: for this run; closed with it.
        num_asks: problems at once.
    """

    draws_apart = False
    concurrency = 1

    def __init__(self, model: str, engine: RolloutEngine, num_asks: int) -> None:
        if num_asks < 1:
            raise DajError(f"concurrency is {num_asks}; wanted at least 1 problem at a time.")
        self.base = _Base(model, engine)
        self.num_asks = num_asks
        self.settings = {"model": self.base.model, "engine": type(engine).__name__}

    def draws(self, asks: Sequence[Ask], sampling: Sampling, stop: threading.Event) -> list[list[Reply]]:
        prompts = [prompt for ask in asks for prompt in [self.base.encode(ask.problem)] * len(ask.numbers)]
        rollouts = self.base.engine.generate(prompts, self._sampling(asks, sampling))
        replies = (self.base.reply(rollout) for (rollout,) in rollouts)
        return [list(islice(replies, len(ask.numbers))) for ask in asks]

    def _sampling(self, asks: Sequence[Ask], sampling: Sampling) -> Sampling:
        # One seed for all calls would give each the same stream of random numbers.
        named = f"{sampling.seed}/{[(ask.problem.problem_id, ask.numbers) for ask in asks]}"
        seed = int.from_bytes(hashlib.blake2b(named.encode(), digest_size=4).digest())
        return dataclasses.replace(sampling, num_samples=1, seed=seed)

    def close(self) -> None:
        self.base.close()


class _Base:
    """A model and its engine, started when it is first needed."""

    def __init__(self, model: str, engine: RolloutEngine) -> None:
        self.model = str(Path(model).resolve()) if Path(model).is_dir() else model
        self._engine = engine
        self._tokenizer = load_tokenizer(model)

    @cached_property
    def engine(self) -> RolloutEngine:
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
        start(self._engine, frozen_policy(self.model, self._tokenizer, dtype, self._engine.needs_weights))
        return self._engine

    def encode(self, problem: Problem) -> list[int]:
        return encode_prompt(self._tokenizer, prompt_for(problem))

    def reply(self, rollout: Rollout) -> Reply:
        text = str(self._tokenizer.decode(list(rollout.text_ids), skip_special_tokens=True))
        return Reply(text, rollout.finish_reason)

    def close(self) -> None:
        engine = vars(self).pop("engine", None)  # where cached_property keeps it
        if engine is not None:
            engine.close()


def sample_candidates(
    problems: Sequence[Problem],
    policy: Policy,
    name: str,
    output: str | Path,
    sampling: Sampling = PAPER,
    console: Console | None = None,
) -> int:
    """Append the candidates that `output` lacks; returns how many programs have been written, and prints it.

    Args:
        name: of the policy, in the rows.
        output: JSON Lines; other policies' rows in it are left alone.
    Raises:
        DajError: `output` has rows of this policy that were sampled differently, by another model or with other
            prompts, another process writes it, or the model fails. What was written stays.
    """
    console = console or Console()
    settings = {**dataclasses.asdict(sampling), **policy.settings}
    prompts = {problem.problem_id: prompt_digest(problem) for problem in problems}
    written = unfinished = without_code = 0
    with Journal(output, "candidates", ROW_KEYS, ROW_BEGINS) as journal:
        done = sampled(journal.path, name, settings, prompts)
        asks = list(missing(problems, name, done, sampling, policy.draws_apart))
        with Meter(f"sampling {name}", sum(len(numbers) for _, numbers in asks), "programs", console) as meter:
            for (problem, numbers), replies in answers(asks, policy, sampling):
                for number, reply in zip(numbers, replies, strict=True):
                    own = {**settings, "prompt": prompts[problem.problem_id]}
                    row = row_of(problem, name, number, reply, own)
                    journal.append(row)
                    meter.advance()
                    written += 1
                    unfinished += reply.finish_reason == "length"
                    without_code += not row["code"].strip()
    console.print(
        f"{written} programs by {name} for {len(problems)} problems in {output} ({len(done)} were there); "
        f"{unfinished} cut off at {sampling.max_new_tokens} tokens, {without_code} responses without code",
        highlight=False,
        soft_wrap=True,
    )
    return written


def answers(asks: Sequence[Ask], policy: Policy, sampling: Sampling) -> Iterator[tuple[Ask, list[Reply]]]:
    """The replies to all asks, as they come; after an error those under way, then the error.

    An interrupt waits for none of them: their threads are daemons, and nothing is tried again.
    """
    stop = threading.Event()

    def ask(batch: Sequence[Ask]) -> list[tuple[Ask, list[Reply]]]:
        return list(zip(batch, policy.draws(batch, sampling, stop), strict=True))

    batches = (asks[begin : begin + policy.num_asks] for begin in range(0, len(asks), policy.num_asks))
    if policy.concurrency == 1:
        for batch in batches:
            yield from ask(batch)
        return
    running: set[Future[list[tuple[Ask, list[Reply]]]]] = set()
    failed: Future[list[tuple[Ask, list[Reply]]]] | None = None
    try:
        while True:
            if failed is None:
                more = islice(batches, policy.concurrency - len(running))
                running |= {in_daemon(partial(ask, batch)) for batch in more}
            if not running:
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                if future.exception() is None:
                    yield from future.result()
                else:
                    failed = failed or future
                    stop.set()
    finally:
        stop.set()
    if failed is not None:
        failed.result()


def in_daemon(call: Callable[[], T]) -> Future[T]:
    """The call in a thread of its own, which does not keep the process from ending."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="daj-sample", daemon=True).start()
    return future


def missing(problems: Sequence[Problem], name: str, done: set[str], sampling: Sampling, apart: bool) -> Iterator[Ask]:
    """Problems with the numbers of the draws that are not there; one number at a time if `apart`."""
    for problem in problems:
        numbers = [n for n in range(sampling.num_samples) if candidate_name(problem, name, n) not in done]
        if apart:
            yield from (Ask(problem, [number]) for number in numbers)
        elif numbers:
            yield Ask(problem, numbers)


def sampled(path: Path, name: str, settings: Mapping[str, Any], prompts: Mapping[str, str]) -> set[str]:
    """Ids of the policy's candidates in the file; they must have been sampled with these settings and prompts."""
    done = set()
    same: dict[str, Any] = {"engine": None, **settings}  # None: no row of an engine's is gone on with by another policy
    del same["num_samples"]  # more may be asked for later
    for number, row in iterate_jsonl(path, "candidates"):
        if row.get("policy") != name:
            continue
        found = row.get("sampling") or {}
        prompt = prompts.get(str(row.get("problem_id")))
        wanted = same if prompt is None else {**same, "prompt": prompt}  # other problems may stand there too
        changed = [f"{key} {found.get(key)!r}" for key, value in wanted.items() if found.get(key) != value]
        if changed:
            raise DajError(
                f"candidates: {path}, line {number} was sampled by {name!r} with {', '.join(changed)}; now it is "
                f"{', '.join(f'{key} {value!r}' for key, value in wanted.items() if found.get(key) != value)}. "
                f"Name another output, or another policy."
            )
        done.add(str(row["candidate_id"]))
    return done


def row_of(problem: Problem, name: str, number: int, reply: Reply, settings: dict[str, Any]) -> dict[str, Any]:
    code = sanitize(reply.text, problem.unit_tests.entry_point) if problem.unit_tests else extract_code(reply.text)
    candidate = Candidate(candidate_name(problem, name, number), problem.problem_id, name, code)
    return {
        **dataclasses.asdict(candidate),
        "response": reply.text,
        "finish_reason": reply.finish_reason,
        "sampling": settings,
    }


def candidate_name(problem: Problem, name: str, number: int) -> str:
    return f"{problem.problem_id}/{name}/{number}"


def seed_of(sampling: Sampling, problem: Problem) -> int:
    """Of a problem's draws; a multiple of 1,024, so that a draw's number can be added."""
    digest = hashlib.blake2b(f"{sampling.seed}/{problem.problem_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 11 << 10


def prompt_for(problem: Problem) -> str:
    """What a policy is asked: the task, the statement as the benchmark gives it, and what to start from."""
    statement = problem.statement.strip()
    if problem.unit_tests:
        ask = UNIT_TESTS.format(name=problem.unit_tests.entry_point)
        if f"def {problem.unit_tests.entry_point}" in statement and "```" not in statement:
            statement = f"```python\n{statement}\n```"  # the "complete" prompt is code
        return f"{TASK}\n\n{statement}\n\n{ask}\n{FORM}"
    if problem.function_name:
        return f"{TASK}\n\n{statement}\n\n{FUNCTIONAL}\n```python\n{problem.starter_code.rstrip()}\n```\n{FORM}"
    return f"{TASK}\n\n{statement}\n\n{STDIN}\n{FORM}"


def prompt_digest(problem: Problem) -> str:
    """Changes with what a policy is asked."""
    return hashlib.sha256(prompt_for(problem).encode("utf-8", "surrogatepass")).hexdigest()[:16]
