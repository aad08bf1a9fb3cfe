"""A plan on the screen."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from daj_lightning.planning.devices import FRAGMENTATION, GIB, HOST_GB_S, OUTSIDE_GIB
from daj_lightning.planning.plan import Plan
from daj_lightning.planning.work import DAY_S


def print_plan(plan: Plan, console: Console) -> None:
    """Memory, work, and whether it fits."""
    _print_memory(plan, console)
    _print_work(plan, console)
    usable, device = plan.usable, plan.device
    vllm = f", {plan.sizes.reserved:.0%} for vLLM" if plan.sizes.reserved else ""
    less = f"{device.gib:g}, less {OUTSIDE_GIB:g} outside torch, {FRAGMENTATION:.0%} of fragmentation{vllm}"
    held = f"{usable / GIB:.1f} GiB for tensors on {device.name} ({less})"
    verdict = "fits" if plan.fits else "does not fit"
    console.print(f"[bold]{verdict}[/]: {plan.memory.peak / GIB:.2f} GiB of {held}")
    if plan.fits:
        return
    if plan.remedies:
        _print_remedies(plan, console)
    if plan.remedied.peak <= usable:
        window, days = plan.remedied_work.seconds, plan.remedied_work.seconds * plan.sizes.max_windows / DAY_S
        console.print(f"then it fits: {plan.remedied.peak / GIB:.2f} GiB, {window:.1f} s a window, {days:.1f} days")
    else:
        console.print(
            f"even then {plan.remedied.peak / GIB:.2f} GiB: use a larger device, a smaller base, or --devices to shard "
            "the base over."
        )


def _print_memory(plan: Plan, console: Console) -> None:
    sizes, choices, needed = plan.sizes, plan.choices, plan.memory
    rows = f"{choices.rows} row{'s' * (choices.rows > 1)} of {choices.length} tokens, {choices.scored} scored"
    table = Table("memory of one device", "GiB", title=f"{escape(plan.base)}: longest sample, {rows}")
    _add(table, "", needed.stays)
    table.add_section()
    _add(table, "+ ", needed.moments)
    table.add_section()
    _add(table, "within a sample: ", needed.parts)
    table.add_section()
    table.add_row(f"[bold]peak[/], reached in the {needed.moment}", f"[bold]{needed.peak / GIB:.2f}[/]")
    table.add_row("peak without checkpointing", f"{plan.without_checkpointing / GIB:.2f}")
    table.add_row("peak with checkpointing", f"{plan.with_checkpointing / GIB:.2f}")
    windows = f", {choices.unroll_windows} windows" if choices.unroll_windows > 1 else ""
    for dtype, own in plan.banks.items():
        table.add_row(f"a bank in {dtype}, K = {sizes.num_inner}{windows}", f"{own / GIB:.2f}")
    if needed.host:
        table.add_row("on the host, page-locked", f"{needed.host / GIB:.2f}")
    console.print(table)
    console.print(
        f"base of {sizes.base_bytes / GIB:.2f} GiB in {sizes.base_itemsize} bytes a number; {sizes.adapters:,} adapter "
        f"parameters in {sizes.adapter_itemsize}; {sizes.weights:,} parameters of the weights"
    )


def _add(table: Table, prefix: str, named: Mapping[str, int]) -> None:
    for name, own in named.items():
        table.add_row(prefix + name, f"{own / GIB:.2f}")


def _print_work(plan: Plan, console: Console) -> None:
    done, sizes, choices = plan.work, plan.sizes, plan.choices
    over = f", {choices.devices} devices" if choices.devices > 1 else ""
    table = Table("work of one device", "", title=f"one window, rows of {plan.tokens} tokens{over}")
    table.add_row("tokens with a backward", f"{done.tokens:,}")
    for name, flops in done.flops.items():
        table.add_row(f"TFLOP, {name}", f"{flops / 1e12:,.0f}" if flops >= 1e13 else f"{flops / 1e12:.3g}")
    table.add_row(f"s at {done.utilisation:.0%} (assumed) of {done.tflops:g} TFLOP/s", f"{done.compute_s:.2f}")
    for name, seconds in done.transfer_s.items():
        table.add_row(f"s of {name}, at least", f"{seconds:.2f}")
    table.add_row("s of a window, at least", f"{done.seconds:.2f}")
    table.add_row(f"days for {sizes.max_windows:,} windows", f"{done.seconds * sizes.max_windows / DAY_S:.1f}")
    console.print(table)


def _print_remedies(plan: Plan, console: Console) -> None:
    console.print("turn, the cheapest first:")
    for number, remedy in enumerate(plan.remedies, start=1):
        console.print(f"{number}. [bold]{remedy.name}[/]: {escape(remedy.setting)}")
        freed = f"frees {remedy.saved / GIB:.2f} GiB, costs {remedy.seconds:+.2f} s a window"
        console.print(f"   {freed}; {remedy.cost}")
    if any(remedy.choices.offload for remedy in plan.remedies):
        console.print(f"(rows travel at an assumed {HOST_GB_S:g} GB/s)")
