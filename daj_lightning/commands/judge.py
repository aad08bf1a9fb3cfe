"""Commands that put a judge to work."""

from __future__ import annotations

from typing import Literal

from daj_lightning.execution import Limits
from daj_lightning.judge.adaptive import Adaptive
from daj_lightning.judge.selection import Strategy
from daj_lightning.judge.voting import Voting as Voting  # known to --strategy by its name
from daj_lightning.records import DajError


def export(config: list[str], output: str, ckpt_path: str = "last") -> None:
    """Write a trained judge as a PEFT adapter, with its tokenizer and prompt template.

    Args:
        config: configuration files of the run.
        output: directory to write.
        ckpt_path: checkpoint file, or "last".
    """
    from daj_lightning.cli import load
    from daj_lightning.serving import export_judge

    cli = load(config)
    path = cli.resolve_checkpoint(ckpt_path)
    assert path is not None
    export_judge(cli.model, cli.datamodule, path, output)
    print(f"wrote the judge of {path} to {output}")


def select(
    judge: str,
    candidates: str,
    output: str,
    strategy: Strategy | None = None,
    batch_size: int | None = None,
    engine: Literal["transformers", "vllm"] = "transformers",
    vllm_python: str | None = None,
    hybrid: bool = False,
    num_workers: int = 2,
    unsafe_local: bool = False,
    limits: Limits | None = None,
) -> None:
    """Pick one program among the candidates of each problem; go on where an earlier run broke off.

    Args:
        judge: directory written by `export`.
        candidates: JSON Lines of {problem_id, statement, candidates}; a candidate is its code or {candidate_id, code}.
            title, platform, difficulty, starter_code, function_name and public_tests ([{input, output}, ...]) are
            optional.
        output: JSON Lines to write: {problem_id, selected, candidate_id, code, votes, num_invalid, num_comparisons,
            confidence}. The judge's answers lie beside it, in *.judgments.jsonl.
        strategy: Adaptive (the default) asks where the winner is open and stops once it is settled, Knockout asks
            N - 1 times, RoundRobin about every pair, Voting about random pairs (the paper). Its options follow it:
            --strategy Voting --strategy.rounds 8; --strategy.help=Adaptive lists them.
        batch_size: comparisons answered together, and lost together by a kill; 16 unless given, with vllm 256.
        engine: what the judge runs on: in this process, or in a vLLM server that is started for it.
        vllm_python: interpreter of the environment that holds vllm; this one unless given.
        hybrid: execute the candidates on the public tests first, and ask the judge about those that pass.
        num_workers: candidates executed at once; at most the number of idle cores.
        unsafe_local: execute without isolation, if nothing on this host can give it; every row says so.
        limits: of one test.
    """
    from daj_lightning.serving import engine_named, screener_if, select_file

    runs_on, batch = engine_named(engine, vllm_python, batch_size)
    screener = screener_if(hybrid, num_workers, limits, unsafe_local)
    done = select_file(judge, candidates, output, strategy or Adaptive(), batch, runs_on, screener)
    saved = done.num_of_round_robin - done.num_comparisons
    print(
        f"selected for {done.num_new} problems ({done.num_before} were done before, {done.num_abstained} abstained) "
        f"with {done.num_comparisons} comparisons, {saved} fewer than a round robin; wrote {output}"
    )
    if done.num_remembered:
        print(f"{done.num_remembered} of the comparisons had been answered before the last run broke off")
    if done.num_too_long:
        print(f"{done.num_too_long} comparisons did not fit into the judge's context; they count as invalid")
    if hybrid:
        print(
            f"public tests took {done.num_out} candidates out; {done.num_none_passed} problems had none that passed, "
            f"{done.num_untested} had no public tests: there the judge chose among all"
        )


def serve(
    judge: str,
    host: str = "127.0.0.1",
    port: int = 8321,
    strategy: Strategy | None = None,
    batch_size: int | None = None,
    engine: Literal["transformers", "vllm"] = "transformers",
    vllm_python: str | None = None,
    hybrid: bool = False,
    num_workers: int = 2,
    unsafe_local: bool = False,
    limits: Limits | None = None,
    max_waiting: int = 128,
    max_body_mib: float = 10.0,
    max_candidates: int = 32,
) -> None:
    """Answer POST /select over HTTP: a problem and candidates in, the choice with votes and reasoning out.

    Args:
        judge: directory written by `export`.
        host: address to listen on; nobody is asked for a password, so keep it on this machine or behind a proxy.
        port: to listen on; 0 takes a free one and prints it.
        strategy: as of `select`.
        batch_size: comparisons answered together, of all requests that wait; 16 unless given, with vllm 256.
        engine: what the judge runs on: in this process, or in a vLLM server that is started for it.
        vllm_python: interpreter of the environment that holds vllm; this one unless given.
        hybrid: execute the candidates on the public tests first, and ask the judge about those that pass.
        num_workers: candidates executed at once; at most the number of idle cores.
        unsafe_local: execute without isolation, if nothing on this host can give it; every answer says so.
        limits: of one test.
        max_waiting: requests in the house; the next one is refused with 429 and told when to try again.
        max_body_mib: of a request; a longer one is refused with 413.
        max_candidates: of a request; with more it is refused with 422.
    """
    from daj_lightning.serving import engine_named, screener_if

    try:
        from daj_lightning.serving.service import serve as run
    except ModuleNotFoundError as error:
        raise DajError(f"serve needs {error.name}: pip install 'daj-lightning[serve]'.") from error
    runs_on, batch = engine_named(engine, vllm_python, batch_size)
    screener = screener_if(hybrid, num_workers, limits, unsafe_local)
    run(
        judge,
        strategy or Adaptive(),
        batch,
        runs_on,
        screener,
        host=host,
        port=port,
        max_waiting=max_waiting,
        max_body_mib=max_body_mib,
        max_candidates=max_candidates,
    )
