"""Finds the LoRA adapter that classifies your texts best.

    import lorasweep

    sweep = lorasweep.run("my.csv", trials=20)
    sweep.winner
    sweep.predict(["Markets rally as inflation cools"], ["Shares rose after the monthly report."])
    sweep.export("best-adapter")

Names are imported when they are first used, so `import lorasweep` is quick.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorasweep.adapter import Adapter, load
    from lorasweep.comparing import compare
    from lorasweep.exporting import export
    from lorasweep.running import open, resume, run, sweeps
    from lorasweep.search_spaces.domains import Choice, IntRange, Range
    from lorasweep.search_spaces.space import SearchSpace
    from lorasweep.sweep import Sweep
    from lorasweep.training.errors import (
        DataError,
        ExportError,
        LorasweepError,
        ModelError,
        SettingsError,
        SweepStoppedError,
        TrainingError,
    )
    from lorasweep.training.settings import Hyperparameters
    from lorasweep.tuning.compare.compare import Comparison
    from lorasweep.tuning.record.config import SweepConfig

# Where each public name is defined.
_NAMES = {
    "lorasweep.running": ("open", "resume", "run", "sweeps"),
    "lorasweep.comparing": ("compare",),
    "lorasweep.sweep": ("Sweep",),
    "lorasweep.exporting": ("export",),
    "lorasweep.adapter": ("Adapter", "load"),
    "lorasweep.tuning.compare.compare": ("Comparison",),
    "lorasweep.tuning.record.config": ("SweepConfig",),
    "lorasweep.training.settings": ("Hyperparameters",),
    "lorasweep.search_spaces.space": ("SearchSpace",),
    "lorasweep.search_spaces.domains": ("Choice", "IntRange", "Range"),
    "lorasweep.training.errors": (
        "DataError",
        "ExportError",
        "LorasweepError",
        "ModelError",
        "SettingsError",
        "SweepStoppedError",
        "TrainingError",
    ),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [  # noqa: RUF022  what one calls first, what one gets, what one writes, what is raised
    "run",
    "open",
    "resume",
    "sweeps",
    "load",
    "export",
    "compare",
    "Sweep",
    "Adapter",
    "Comparison",
    "SweepConfig",
    "Hyperparameters",
    "SearchSpace",
    "Choice",
    "Range",
    "IntRange",
    "LorasweepError",
    "DataError",
    "ModelError",
    "SettingsError",
    "TrainingError",
    "ExportError",
    "SweepStoppedError",
    "__version__",
]

__version__ = version("lorasweep")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lorasweep' has no attribute {name!r}")
    with warnings.catch_warnings():
        # Some libraries warn when they are imported.
        warnings.simplefilter("ignore")
        value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
