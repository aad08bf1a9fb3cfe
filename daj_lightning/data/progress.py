"""How far a long command is: a bar on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LINE_INTERVAL_S = 15.0


class Meter:
    """Counts what is done out of `total`; a context manager. Threads may share it.

    Args:
        what: the work, in words.
        total: things to do.
        unit: what one of them is called, in the plural.
        console: None for standard output.
    """

    def __init__(self, what: str, total: int, unit: str, console: Console | None = None) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.console = console or Console()
        self.done = 0
        self.bar: Progress | None = None
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(unit),
                TimeRemainingColumn(),
                console=self.console,
            )

    def __enter__(self) -> Self:
        self.started = self.spoken = time.monotonic()
        if self.bar:
            self.bar.start()
            self.task = self.bar.add_task(self.what, total=self.total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()
        elif self.done:
            self.say()

    def advance(self) -> None:
        self.done += 1
        if self.bar:
            self.bar.advance(self.task)
        elif time.monotonic() - self.spoken >= LINE_INTERVAL_S:
            self.say()

    def say(self) -> None:
        """One line: done, rate, time left."""
        self.spoken = time.monotonic()
        rate = self.done / max(self.spoken - self.started, 1e-9)
        left = (self.total - self.done) / rate if rate else 0.0
        self.console.print(
            f"{self.what}: {self.done} of {self.total}, {rate:.1f} {self.unit}/s, {duration(left)} left",
            highlight=False,
        )


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


class _Rate(ProgressColumn):
    """Speed over the last seconds, in the meter's unit."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self.unit}/s" if speed else "", style="progress.data.speed")
