"""The table of export formats: the place to add one. It imports nothing heavy, as the command line reads it.

A format is an entry of `FORMATS` and, where it is not the adapter folder itself, a function that writes it. That
function writes weights, tokenizer, config.json and a card (`converted_card`), and compares the new folder's
predictions with those of the folder that it was made from. The choices of the command line and of Python, what is
checked before an export begins, and what an upload replaces on a hub come from the entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lorasweep.training.errors import ExportError, missing_extra

if TYPE_CHECKING:
    from lorasweep.training.data.dataset import Texts

ExportFormat = Literal["adapter", "merged", "onnx"]
Convert = Callable[[Path, Path, str, "Texts | None"], str]


@dataclass(frozen=True)
class Format:
    """One format of an exported folder.

    Attributes:
        about: what it is, for help texts.
        files: patterns of the files that hold its weights.
        convert: writes it, checked, from an exported adapter or whole model, and returns what to tell the user. Its
            arguments: that folder, an empty one to write into, the name that this one will have, and rows to
            compare on. None for the folder as the trial's weights make it.
        extra: the extra of lorasweep that brings `packages`.
        packages: packages without which it cannot be written.
        runs_here: whether lorasweep itself loads and runs it.
    """

    about: str
    files: tuple[str, ...]
    convert: Convert | None = None
    extra: str = ""
    packages: tuple[str, ...] = ()
    runs_here: bool = True


def _merged(folder: Path, stage: Path, name: str, rows: Texts | None) -> str:
    from lorasweep.tuning.adapters.export.merged import write_merged

    return write_merged(folder, stage, name, rows)


def _onnx(folder: Path, stage: Path, name: str, rows: Texts | None) -> str:
    from lorasweep.tuning.adapters.export.onnx_model import write_onnx

    return write_onnx(folder, stage, name, rows).text()


FORMATS: dict[ExportFormat, Format] = {
    "adapter": Format(
        "the adapter, which needs its base model", files=("adapter_config.json", "adapter_model.safetensors")
    ),
    "merged": Format(
        "a whole transformers model",
        files=("*.safetensors", "*.safetensors.index.json"),
        convert=_merged,
    ),
    "onnx": Format(
        "an ONNX model",
        files=("model.onnx*",),
        convert=_onnx,
        extra="onnx",
        packages=("onnx", "onnxscript", "onnxruntime"),
        runs_here=False,
    ),
}


def check_format(form: ExportFormat) -> None:
    """Raise `ExportError` where packages are missing that the format needs."""
    kind = FORMATS[form]
    missing = [name for name in kind.packages if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"--format {form}: needs packages that are not installed ({', '.join(missing)}); "
            f"run: {missing_extra(kind.extra)}"
        )
