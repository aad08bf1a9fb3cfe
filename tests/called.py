"""Which ops a call runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class _Named(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def ops_called(call: Callable[[], object]) -> set[str]:
    """Names of the ops that reach torch's dispatcher, e.g. "aten::mv"."""
    with _Named() as called:
        call()
    return called.names
