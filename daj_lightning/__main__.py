"""`python -m daj_lightning COMMAND`: one table of commands.

fit, validate and test are Lightning's; the others are functions below, whose arguments are their options.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_type_hints

from jsonargparse import ArgumentParser

from daj_lightning.data.bigcodebench import Variant
from daj_lightning.data.imports import Format
from daj_lightning.data.problems import Benchmark
from daj_lightning.execution import Limits, Rules
from daj_lightning.judge.adaptive import Adaptive
from daj_lightning.judge.selection import Strategy
from daj_lightning.judge.voting import Voting as Voting  # known to --strategy by its name
from daj_lightning.records import DajError

LIGHTNING = ("fit", "validate", "test")


def prepare(config: list[str]) -> None:
    """Execute every candidate, and write labelled training, meta and test files.

    Args:
        config: configuration files, later ones on top.
    """
    from daj_lightning.cli import load
    from daj_lightning.data.prepare import prepare as run

    data = load(config).datamodule
    run(data.preparation, data.root)


def pairs(config: list[str]) -> None:
    """Sample judge responses for the verdicts that `prepare` left, and write pairs; executes nothing.

    Args:
        config: configuration files, later ones on top.
    """
    from daj_lightning.cli import load
    from daj_lightning.data import prepare_pairs

    data = load(config).datamodule
    prepare_pairs(data.preparation, data.root)


def sample(
    problems: list[str],
    output: str,
    benchmark: Benchmark = "livecodebench",
    variant: Variant = "instruct",
    model: str = "",
    endpoint: str | None = None,
    engine: Literal["transformers", "vllm"] = "transformers",
    vllm_python: str | None = None,
    policy: str | None = None,
    num_samples: int = 8,
    temperature: float = 0.7,
    top_p: float = 0.8,
    top_k: int = 20,
    repetition_penalty: float = 1.05,
    max_new_tokens: int = 8192,
    seed: int = 0,
    concurrency: int = 16,
    timeout_s: float = 1800.0,
) -> None:
    """Ask a model for programs; go on where an earlier run broke off. The defaults are the paper's.

    Args:
        problems: files of the benchmark, official schema.
        output: JSON Lines of candidates, new or to be continued.
        benchmark: whose problems they are.
        variant: of BigCodeBench's prompts.
        model: directory of a model; with --endpoint, the name that the endpoint knows it by.
        endpoint: address of an OpenAI-compatible server, e.g. http://localhost:8000/v1; without it the model runs
            here. Its key, if it wants one, is read from the variable OPENAI_API_KEY.
        engine: what the model runs on here: in this process, or in a vLLM server that is started for it. vLLM's draws
            do not repeat.
        vllm_python: interpreter of the environment that holds vllm; this one unless given.
        policy: name of the model in the candidates' rows and ids; the last part of --model unless given.
        num_samples: programs a problem.
        temperature: of the draws; 0 decodes greedily.
        top_p: share of the likeliest tokens drawn among.
        top_k: number of the likeliest tokens drawn among; 0: all.
        repetition_penalty: above 1, makes tokens that are there already less likely.
        max_new_tokens: of an answer.
        seed: of the draws.
        concurrency: requests under way at once; problems of one request to vLLM.
        timeout_s: of one request.
    """
    from daj_lightning.data.problems import read_problems
    from daj_lightning.data.sampling import EndpointPolicy, EnginePolicy, ModelPolicy, Policy, sample_candidates
    from daj_lightning.rollout import ChatEndpoint, Sampling, VllmServer

    if not model:
        raise DajError("which model? Give --model, a directory; or with --endpoint the name of a served model.")
    if endpoint is not None and engine == "vllm":
        raise DajError("--endpoint names a server that runs, --engine vllm starts one. Give one of the two.")
    if vllm_python is not None and engine != "vllm":
        raise DajError("--vllm_python is of no use without --engine vllm. Add that, or leave it out.")
    sampling = Sampling(
        max_new_tokens, temperature, top_p, num_samples, seed, top_k=top_k, repetition_penalty=repetition_penalty
    )
    found, _ = read_problems(problems, benchmark, variant)
    asked: Policy
    if endpoint is not None:
        asked = EndpointPolicy(ChatEndpoint(endpoint, model, timeout_s), concurrency)
    elif engine == "vllm":
        # Not VllmColocated: a server has time limits, is started again, and may be in an environment of its own.
        asked = EnginePolicy(model, VllmServer(python=vllm_python, request_timeout_s=timeout_s), concurrency)
    else:
        asked = ModelPolicy(model)
    name = policy or model.rstrip("/").rpartition("/")[2]
    try:
        sample_candidates(list(found.values()), asked, name, output, sampling)
    finally:
        asked.close()


def label(
    problems: list[str],
    candidates: str,
    output: str,
    benchmark: Benchmark = "livecodebench",
    rules: Rules = "process",
    num_workers: int = 2,
    shard: str = "0/1",
    sanitize: bool = True,
    unsafe_local: bool = False,
    python: str | None = None,
    limits: Limits | None = None,
) -> None:
    """Execute candidates and append their verdicts to a file; go on where an earlier run was killed.

    Args:
        problems: files of the benchmark, official schema.
        candidates: JSON Lines of {problem_id, policy, code, candidate_id?}.
        output: JSON Lines of verdicts, new or to be continued.
        benchmark: whose problems they are.
        rules: "process" runs a program as its user would; "official" compares as LiveCodeBench's grader does.
        num_workers: candidates executed at once; at most the number of idle cores.
        shard: "i/n" labels the problems of shard i of n, from 0/n to (n-1)/n; join the outputs with `cat`.
        sanitize: reduce BigCodeBench's programs to what the entry point needs, as officially before grading.
        unsafe_local: execute without isolation, if nothing on this host can give it; every verdict says so.
        python: binary that candidates run under, with the packages they import; this one unless given.
        limits: of one test.
    """
    from daj_lightning.data.labelling import label_file
    from daj_lightning.data.problems import read_problems

    found, digest = read_problems(problems, benchmark)
    label_file(
        found,
        digest,
        candidates,
        output,
        rules=rules,
        num_workers=num_workers,
        shard=shard,
        sanitized=sanitize,
        mode="unsafe-local" if unsafe_local else None,
        python=python,
        limits=limits,
    )


def import_graded(graded: str, format: Format, policy: str, output_dir: str, samples: str | None = None) -> None:
    """Turn somebody else's graded programs into candidates and verdicts, executing nothing.

    Args:
        graded: LiveCodeBench's *_eval_all.json, BigCodeBench's *_eval_results.json or EvalPlus' eval_results.json;
            or packed, .json.gz.
        format: lcb_eval_all, bigcodebench or evalplus.
        policy: name of the model that wrote the programs.
        output_dir: gets candidates.jsonl and verdicts.jsonl (data.verdicts of a configuration).
        samples: the JSON Lines that were graded (BigCodeBench, EvalPlus), if their programs are to be taken.
    """
    from daj_lightning.data.imports import import_graded as run

    number, passing = run(graded, format, policy, output_dir, samples)
    print(f"imported {number} programs by {policy}, {passing} of them passing, into {output_dir}")


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


def score(
    model: str,
    candidates: str,
    output: str,
    problems: list[str] | None = None,
    config: list[str] | None = None,
    benchmark: Benchmark = "livecodebench",
    kind: Literal["reward", "process"] = "reward",
    aggregate: Literal["min", "product", "last"] = "min",
    step_tag: str = "<extra_0>",
    step_split: str = "\n\n",
    batch_size: int = 8,
    max_length: int = 8192,
) -> None:
    """Give every program the number of a scalar or process reward model; go on where an earlier run broke off.

    Args:
        model: directory or hub name of a sequence classifier with one label, or with --kind process of a token
            classifier.
        candidates: JSON Lines of {problem_id, policy, code, candidate_id?, statement?}.
        output: JSON Lines of scores, new or to be continued; `evaluate` reads them.
        problems: files of the benchmark, official schema, for the statements.
        config: configuration files whose data.source has the statements.
        benchmark: whose problems they are.
        kind: "reward" scores a program as a whole, "process" its steps.
        aggregate: what the steps' probabilities come to.
        step_tag: token behind each step, at which a process reward model is read.
        step_split: text that separates two steps of a program.
        batch_size: programs scored together.
        max_length: tokens of statement and program; what is longer loses its middle.
    """
    from daj_lightning.data.problems import read_problems
    from daj_lightning.evaluation.scalar import Steps, score_file

    known = list(read_problems(problems, benchmark)[0].values()) if problems else []
    if config:
        from daj_lightning.cli import load

        known += load(config).datamodule.preparation.source.load()[0]
    steps = Steps(step_tag, step_split, aggregate) if kind == "process" else None
    new, before, cut = score_file(model, candidates, output, known, steps, batch_size, max_length)
    print(f"scored {new} programs ({before} were done before, {cut} lost their middle); wrote {output}")


def evaluate(
    output: str,
    data: str | None = None,
    side: Literal["test", "unseen", "meta"] = "test",
    problems: list[str] | None = None,
    candidates: str | None = None,
    verdicts: str | None = None,
    benchmark: Benchmark = "livecodebench",
    judgments: list[str] | None = None,
    selections: list[str] | None = None,
    scores: list[str] | None = None,
    pairs: list[str] | None = None,
    pairs_source: str = "",
    influence: str | None = None,
    config: list[str] | None = None,
    execute: bool = False,
    num_workers: int = 2,
    unsafe_local: bool = False,
    python: str | None = None,
    title: str = "Evaluation",
) -> None:
    """Measure judges on the same candidates or pairs; print tables, and write evaluation.json and a report.

    The first judge is compared with every other one. Judges are named: --judgments ours=FILE other=FILE.

    Args:
        output: directory of evaluation.json and the report.
        data: directory that `prepare` wrote; or --problems, --candidates and --verdicts; or --pairs alone.
        side: whose problems count.
        problems: files of the benchmark, official schema.
        candidates: JSON Lines of {problem_id, policy, code, candidate_id?}.
        verdicts: file that `label` or `import` wrote.
        benchmark: whose problems they are.
        judgments: NAME=FILE of judgments, as `test` writes them beside its scores; most votes win.
        selections: NAME=FILE of {problem_id, candidate_id}, as `select` writes them: whom the judge of that name
            picked, in place of its votes.
        scores: NAME=FILE of {problem_id, candidate_id, score}, as `score` writes them.
        pairs: NAME=FILE of judgments in both orders with their labels, as JudgeBench publishes them.
        pairs_source: of these only pairs whose source begins so, e.g. livecodebench.
        influence: influence.parquet of a run: weights over training, helpful and harmful samples.
        config: configuration files of the run, later ones on top: the problems, and the samples as it saw them.
        execute: run the candidates on public inputs, for clustering by output.
        num_workers: candidates executed at once.
        unsafe_local: execute without isolation, if nothing on this host can give it; with --config that decides.
        python: binary that candidates run under; with --config that decides.
        title: of the page.
    """
    from rich.console import Console

    from daj_lightning.evaluation.command import Given, Run, evaluate_files

    run = None
    if config:
        from daj_lightning.cli import load

        cli = load(config)
        drawn = cli.model.rollouts.sampling.max_new_tokens if cli.model.rollouts else 0
        run = Run(cli.datamodule, cli.model.objective.unit, drawn)
    given = Given(
        output=output,
        data=data,
        side=side,
        problems=problems or (),
        candidates=candidates,
        verdicts=verdicts,
        benchmark=benchmark,
        judgments=judgments or (),
        selections=selections or (),
        scores=scores or (),
        pairs=pairs or (),
        pairs_source=pairs_source,
        influence=influence,
        execute=execute,
        num_workers=num_workers,
        unsafe_local=unsafe_local,
        python=python,
        title=title,
    )
    found = evaluate_files(given, run, Console())

    from daj_lightning.evaluation.report import write_report

    write_report(found, Path(output))
    print(f"wrote {output}")


def audit(
    data: str,
    meta: str,
    model: str = "",
    output: str = "audit",
    id_column: str | None = None,
    domain_column: str | None = None,
    looks: int = 4,
    unroll_windows: int = 8,
    show: int = 20,
    base_dtype: Literal["bfloat16", "float32"] = "bfloat16",
    lora_r: int = 16,
    lora_targets: list[str] | None = None,
    gradient_checkpointing: bool = False,
    beta: float = 0.1,
    lr: float = 5e-5,
    num_inner: int = 16,
    num_meta: int = 8,
    max_length: int = 2048,
    seed: int = 0,
) -> None:
    """Rank the rows of a preference file by their influence on a meta set, with the reason to look at each.

    Trains LoRA adapters shortly on all rows alike (DPO) and credits every row for what it did to the meta loss.

    Args:
        data: JSON Lines or parquet of {prompt, chosen, rejected}: text, or chat messages {role, content}, with or
            without a prompt of its own; or a prepared pairs file.
        meta: the same, of rows that can be trusted and look like what the model is for.
        model: directory or hub name of a causal language model.
        output: directory that gets audit.md and audit.parquet.
        id_column: of the data; "id" unless given, if there is one.
        domain_column: "domain" or "source" unless given, if there is one.
        looks: windows that see each row; more tell influence from chance.
        unroll_windows: windows over which a row's effect is followed; Adam spreads it over about ten. Memory holds as
            many times num_inner gradients of the adapters.
        show: rows shown with their text, of either end.
        base_dtype: of the frozen model.
        lora_r: rank of the adapters.
        lora_targets: names of the linear layers that get one, e.g. q_proj v_proj; unless given all seven projections
            of the Llama and Qwen families.
        gradient_checkpointing: recompute activations; saves memory for large models.
        beta: of DPO.
        lr: learning rate of the adapters (Adam).
        num_inner: rows a window.
        num_meta: meta rows a window.
        max_length: tokens of prompt and answer; longer answers lose their middle, longer prompts cannot be used.
        seed: of the adapters' start and the order of rows.
    """
    from daj_lightning.audit import Settings, audit as run

    settings = Settings(
        base_dtype=base_dtype,
        lora_r=lora_r,
        lora_targets=tuple(lora_targets) if lora_targets else None,
        gradient_checkpointing=gradient_checkpointing,
        beta=beta,
        lr=lr,
        looks=looks,
        unroll_windows=unroll_windows,
        num_inner=num_inner,
        num_meta=num_meta,
        max_length=max_length,
        seed=seed,
    )
    run(data, meta, model, output, settings, id_column, domain_column, show)


def kernels() -> None:
    """Print which implementation each kernel uses here, and why."""
    from daj_lightning.kernels import kernel_report

    for line in kernel_report():
        print(line)


COMMANDS: dict[str, Callable[..., None]] = {
    "prepare": prepare,
    "sample": sample,
    "label": label,
    "import": import_graded,
    "pairs": pairs,
    "select": select,
    "score": score,
    "evaluate": evaluate,
    "serve": serve,
    "export": export,
    "audit": audit,
    "kernels": kernels,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; a user's mistake is one line on stderr and exit status 2."""
    args = sys.argv[1:] if argv is None else argv
    try:
        if args[:1] in (["-h"], ["--help"]):
            print(
                __doc__,
                *(f"{name}: {(function.__doc__ or '').splitlines()[0]}" for name, function in COMMANDS.items()),
                sep="\n",
            )
            return 0
        if not args or args[0] not in (*LIGHTNING, *COMMANDS):
            names = ", ".join([*LIGHTNING, *COMMANDS])
            raise DajError(f"no command {args[0]!r}; there are {names}." if args else f"give a command: {names}.")
        if args[0] in LIGHTNING:
            from daj_lightning.cli import Cli

            Cli(argv)
        else:
            call(COMMANDS[args[0]], args)
    except DajError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def call(function: Callable[..., None], args: list[str]) -> None:
    """Run a command's function with its arguments from the command line.

    --config may be repeated; other lists take several values: --problems a.jsonl b.jsonl.
    """
    parser = ArgumentParser(prog=f"daj_lightning {args[0]}", description=(function.__doc__ or "").partition("\n\n")[0])
    hints = get_type_hints(function)
    lists: set[str | int] = {name for name, hint in hints.items() if hint in (list[str], list[str] | None)}
    for name in sorted(map(str, lists)):
        required = hints[name] == list[str]
        if name == "config":
            parser.add_argument("--config", action="append", required=required, help="configuration file, repeatable")
        else:
            parser.add_argument(f"--{name}", nargs="+", type=str, required=required, help=told(function, name))
    parser.add_function_arguments(function, skip=lists, as_positional=False)
    flags = {f"--{name}" for name, hint in hints.items() if hint is bool}
    function(**parser.instantiate(parser.parse_args(as_options(args[1:], flags))).as_dict())


def told(function: Callable[..., None], name: str) -> str:
    """What a function's docstring says of an argument that may be given several times."""
    found = re.search(rf"^ +{name}: (.*(?:\n {{12,}}.*)*)", function.__doc__ or "", re.MULTILINE)
    assert found, f"{function.__name__} says nothing of {name}"
    return f"{' '.join(found[1].split())} (one or several)"


def as_options(args: list[str], flags: set[str]) -> list[str]:
    """--unsafe-local is --unsafe_local, and a flag without a value is true."""
    options = []
    for word, following in pairwise([*args, "--"]):
        name, equals, value = word.partition("=")
        name = name.replace("-", "_").replace("__", "--", 1) if name.startswith("--") else name
        options.append(name + equals + value)
        if name in flags and not equals and following.startswith("--"):
            options.append("true")
    return options


if __name__ == "__main__":
    sys.exit(main())
