"""An adapter carried away: exported, checked, described, packed for MLflow, put to work."""

from __future__ import annotations

from typing import Literal

# An adapter, which needs its base model; a whole transformers model; an ONNX model.
ExportFormat = Literal["adapter", "merged", "onnx"]
