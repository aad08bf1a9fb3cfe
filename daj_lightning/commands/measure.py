"""Commands that measure: judges, data, and this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from daj_lightning.data.problems import Benchmark


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


def plan(
    config: list[str],
    device: str = "a100-80gb",
    gib: float | None = None,
    base: str | None = None,
    devices: int | None = None,
    length: int | None = None,
    utilisation: float = 0.4,
    output: str | None = None,
) -> None:
    """Estimate memory, work and time of a run before it runs, and say which knob to turn where it does not fit.

    Nothing is loaded but the model's config.json: the judge is built on the meta device.

    Args:
        config: configuration files of the run, later ones on top.
        device: a100-40gb, a100-80gb, h100, h200, l40s, rtx4090, cpu or cpu-64gb.
        gib: its memory, where that is another.
        base: directory or config.json of the judge's architecture, where the configuration's base is not at hand.
        devices: that share a window's samples (DDP), and over which the base may be sharded (FSDP2); those of the
            configuration unless given.
        length: tokens of a typical row, for work and time; the longest unless given. Memory is always the longest's.
        utilisation: share of the device's peak rate that the run will reach.
        output: file for all of it as JSON.
    """
    from lightning.pytorch.strategies import ModelParallelStrategy
    from rich.console import Console

    from daj_lightning.cli import load
    from daj_lightning.planning import find_device, make_plan, print_plan, write_plan

    found = find_device(device, gib)
    cli = load(config)
    made = make_plan(
        cli.model,
        cli.datamodule,
        base or cli.model.judge.base,
        found,
        devices=cli.trainer.num_devices * cli.trainer.num_nodes if devices is None else devices,
        sharded=isinstance(cli.trainer.strategy, ModelParallelStrategy),
        length=length,
        utilisation=utilisation,
    )
    print_plan(made, Console())
    if output:
        write_plan(made, output)
        print(f"wrote {output}")


def kernels() -> None:
    """Print which implementation each kernel uses here, and why."""
    from daj_lightning.kernels import kernel_report

    for line in kernel_report():
        print(line)
