"""Commands that make training data: `prepare` in one go, or its links one by one."""

from __future__ import annotations

from typing import Literal

from daj_lightning.data.bigcodebench import Variant
from daj_lightning.data.imports import Format
from daj_lightning.data.problems import Benchmark
from daj_lightning.execution import Limits, Rules
from daj_lightning.records import DajError


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
