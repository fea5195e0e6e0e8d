"""lorasweep's floors importable from a checkout that is not installed, as on a borrowed machine with a GPU.

Importing this module makes `lorasweep.training` the folder `training` beside `benchmarks`, if lorasweep is not
installed; the face (`import lorasweep` itself) is empty then. An installed lorasweep stays as it is.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

CHECKOUT = Path(__file__).resolve().parents[1]
# What `lorasweep.training` and the checks import, beside Python.
NEEDED = ("torch", "transformers", "peft", "safetensors", "numpy", "pydantic")


def missing_packages() -> list[str]:
    """Which of the needed packages are not installed."""
    return [name for name in NEEDED if find_spec(name) is None]


def use_checkout() -> None:
    """Put the checkout's folders in the place of an installed lorasweep, if there is none."""
    try:
        version("lorasweep")
    except PackageNotFoundError:
        package = ModuleType("lorasweep")
        package.__path__ = [str(CHECKOUT)]
        sys.modules.setdefault("lorasweep", package)


use_checkout()
# Read when torch is imported. Asked whether there is a GPU, it then asks NVML and not CUDA itself, which a process that
# will be forked may not have touched.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
