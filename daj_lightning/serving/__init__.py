"""An exported judge on its own: written and read, asked about programs, and behind HTTP.

Names are found when they are asked for: whoever selects does not load the training.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daj_lightning.serving.export import export_judge as export_judge
    from daj_lightning.serving.file import Picked as Picked, select_file as select_file
    from daj_lightning.serving.rows import group_from_row as group_from_row
    from daj_lightning.serving.screening import (
        Screener as Screener,
        Screening as Screening,
        screener_if as screener_if,
    )
    from daj_lightning.serving.selector import (
        Choice as Choice,
        Docket as Docket,
        Selector as Selector,
        engine_named as engine_named,
    )

_HOME = {
    "export": "export_judge",
    "file": "Picked select_file",
    "rows": "group_from_row",
    "screening": "Screener Screening screener_if",
    "selector": "Choice Docket Selector engine_named",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
