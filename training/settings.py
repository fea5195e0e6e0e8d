"""The settings of data and training: what a search may vary, and what all trials of a sweep share."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from lorasweep.training.amp_types import Precision as Precision
from lorasweep.training.metrics import METRICS
from lorasweep.training.metrics import Metric as Metric
from lorasweep.training.metrics import higher_is_better as higher_is_better
from lorasweep.training.patterns import checked_alphas, checked_ranks

Method = Literal["lora", "rslora", "dora", "full"]
Init = Literal["default", "pissa", "olora"]
Long = Literal["cut", "head-tail", "chunks"]
Quantize = Literal["nf4", "int8"]
Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]

# Older records have one name, or None.
LabelColumns = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: () if value is None else (value,) if isinstance(value, str) else value),
]

# The base model that a Python package carries, by its short name.
MINILM = "minilm"


def folder_in_full(name: str) -> str:
    """The name of a base model; of a folder, its full path.

    As typed it would hold in this folder only, and a sweep is resumed and exported from others.
    """
    with suppress(OSError, RuntimeError):  # too long for a path, or of a user without a home: no folder
        folder = Path(name).expanduser()
        if name != MINILM and folder.is_dir():
            return str(folder.resolve())
    return name


class Settings(BaseModel):
    """Base of every settings tree: unknown keys are refused, nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(Settings):
    """Where the texts are, which columns count, and how the rows are split."""

    path: str | None = Field(
        None,
        description="Labelled texts: a file, URL, folder or Hugging Face data set; without it the sample news.",
    )
    validation_path: str | None = Field(
        None, description="File of validation rows; otherwise they are split off the training rows."
    )
    test_path: str | None = Field(
        None, description="File of test rows; otherwise they are split off the training rows."
    )
    text: Names = Field(
        (), description="Text column, or two to read as a pair; usual names are recognised if none is given."
    )
    label: LabelColumns = Field(
        (),
        description="Label column, recognised by default; or a 0/1 column for each label if texts have several.",
    )
    label_separator: str | None = Field(
        None, description="Character between several labels in one field, such as ';'."
    )
    columns: Names = Field((), description="Column names of a CSV or TSV file that has no header line.")
    delimiter: str | None = Field(
        None,
        description="Column separator of a CSV or TSV file, such as ';' or tab; by default that of its suffix.",
    )
    encoding: str | None = Field(
        None, description="Encoding of a text file, such as cp1252; detected by default."
    )
    sheet: str | None = Field(
        None,
        description="Sheet of an .xlsx workbook to read; not needed for one sheet, or sheets named like splits.",
    )
    split_column: str | None = Field(
        None, description="Column that assigns each row to train, validation or test."
    )
    group: str | None = Field(
        None, description="Column, such as author or patient, of which equal values are kept in one split."
    )
    split_by: Literal["random", "date"] = Field(
        "random", description="Split at random, stratified, or by date with the newest rows as the test."
    )
    date: str | None = Field(None, description="Date column for --split-by date; by default date.")
    merge_labels: str | None = Field(
        None, description="Merge synonymous labels: `huffpost` or a YAML file of groups."
    )
    corrections: Names = Field(
        (), description="Files of corrected labels of training rows, as `lorasweep check-labels` writes them."
    )
    max_train_rows: int | None = Field(
        None, ge=1, description="Train on at most this many rows, with every class in proportion."
    )
    max_validation_rows: int | None = Field(
        None,
        ge=1,
        description="Evaluate on at most this many rows; by default a quarter of --max-train-rows, at least 200, or "
        "all.",
    )
    keep_small_classes: bool = Field(
        False, description="Keep classes that have too few rows to appear in every split."
    )


class Hyperparameters(Settings):
    """What a search space may vary from trial to trial.

    This is the place to add a hyperparameter: a field here, and the code of a trial that uses it. Search spaces,
    tables, cards and plots take its name, limits and description. In `json_schema_extra` it may have a `short` name
    for narrow tables, be `adapter_only`, which is not used in full fine-tuning, and have what it `goes_with`: values of
    others, without which a space may not name it.

    The defaults are a good start for LoRA on short texts: every linear layer of the encoder, and a
    learning rate about ten times that of full fine-tuning (Schulman et al., "LoRA Without Regret", 2025).

    Example:
        >>> Hyperparameters(rank=8, learning_rate=2e-3).warmup
        0.06
    """

    method: Method = Field(
        "lora", description="LoRA, rank-stabilised LoRA (scale alpha / sqrt(rank)), DoRA or full fine-tuning."
    )
    rank: int = Field(
        16,
        ge=1,
        le=1024,
        description="Rank of the weight update B·A.",
        json_schema_extra={"adapter_only": True},
    )
    alpha: float = Field(
        32,
        gt=0,
        description="Numerator of the update's scale, alpha / rank.",
        json_schema_extra={"adapter_only": True},
    )
    base_model: str | None = Field(
        None,
        min_length=1,
        description="Base model: a hub id, a local folder or minilm; by default the sweep's own.",
        json_schema_extra={"short": "base"},
    )
    target_modules: str = Field(
        "all-linear",
        min_length=1,
        description="Layers to adapt: a preset, or a regular expression over full module names.",
        json_schema_extra={"short": "targets", "adapter_only": True},
    )
    layers: str = Field(
        "all",
        pattern=r"^(all|upper-half|every-other|\d+-\d+)$",
        description="Adapt all layers, the upper-half, every-other one, or a range such as 6-11, counted from 0.",
        json_schema_extra={"adapter_only": True},
    )
    rank_pattern: Annotated[str, AfterValidator(checked_ranks)] | None = Field(
        None,
        description="Other ranks for some modules, by the ends of their names: `query=16,value=8`.",
        json_schema_extra={"short": "ranks", "adapter_only": True},
    )
    alpha_pattern: Annotated[str, AfterValidator(checked_alphas)] | None = Field(
        None,
        description="Other alphas for some modules, by the ends of their names: `query=32,value=16`.",
        json_schema_extra={"short": "alphas", "adapter_only": True},
    )
    init: Init = Field(
        "default",
        description="Start of the matrices: no update, or the base weight's largest part by SVD or QR.",
        json_schema_extra={"adapter_only": True},
    )
    learning_rate: float = Field(
        1e-3, gt=0, le=1, description="Peak learning rate of AdamW.", json_schema_extra={"short": "rate"}
    )
    lora_plus_ratio: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="Learning rate of the matrices B over that of A (LoRA+).",
        json_schema_extra={"short": "B/A", "adapter_only": True},
    )
    head_rate_ratio: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="Learning rate of the head, and of what else is trained whole, over the adapter's.",
        json_schema_extra={"short": "head", "adapter_only": True},
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Dropout rate in front of the LoRA matrices.",
        json_schema_extra={"adapter_only": True},
    )
    base_dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Dropout inside the base model; by default off, except for the method full.",
    )
    batch_size: int = Field(
        32, ge=1, description="Rows per optimiser step.", json_schema_extra={"short": "batch"}
    )
    weight_decay: float = Field(
        0.01,
        ge=0,
        description="Decoupled weight decay of AdamW, applied to matrices only.",
        json_schema_extra={"short": "decay"},
    )
    warmup: float = Field(
        0.06, ge=0, le=1, description="Share of all steps in which the learning rate rises from 0."
    )
    schedule: Literal["linear", "cosine"] = Field(
        "linear", description="How the learning rate falls to 0 after the warm-up."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Clip gradients to this global norm.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of each target that is spread evenly over all labels."
    )
    loss: Literal["cross_entropy", "focal"] = Field(
        "cross_entropy", description="What is trained on; focal counts rows less that are right already."
    )
    focal_gamma: float = Field(
        2.0,
        ge=0,
        le=10,
        description="Exponent of the focal loss: the higher, the less rows count that are right.",
        json_schema_extra={"short": "gamma", "goes_with": {"loss": "focal"}},
    )
    sampling: Literal["natural", "balanced"] = Field(
        "natural", description="Draw each row once an epoch, or each class equally often."
    )
    class_weights: Literal["none", "inverse"] = Field(
        "none",
        description="Weight the loss by inverse class frequency, or not.",
        json_schema_extra={"short": "weights"},
    )


UNTUNED = Hyperparameters(rank=8, alpha=16, target_modules="query-value", learning_rate=2e-5)
"""The usual untuned choice that a sweep's winner is compared with: a rate fit for full fine-tuning."""


class TrainingSettings(Settings):
    """What all trials of a sweep share, so that settings are compared and not luck."""

    epochs: int = Field(3, ge=1, description="Epochs of a trial that runs to its end.")
    evaluations_per_epoch: int = Field(
        2, ge=1, description="Evaluations per epoch; ASHA may stop a trial at some of them."
    )
    precision: Precision = Field(
        "auto", description="Mixed precision; `auto` is bf16 in hardware, else fp16 on CUDA, else fp32."
    )
    max_length: int = Field(
        128, ge=4, description="Most tokens of a text, or of a pair, that the model reads at once."
    )
    long: Long = Field(
        "cut",
        description="How longer texts are read: cut off, head and tail, or in chunks whose logits are averaged.",
    )
    micro_batch_size: int | None = Field(
        None, ge=1, description="Rows on the device at once; gradients accumulate up to the batch size."
    )
    quantize: Quantize | None = Field(
        None,
        description="Store the frozen base model in 4 bits (nf4) or 8 (int8), by bitsandbytes; otherwise as it is.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute each layer again in the backward pass: less memory, a third more time."
    )
    class_weights: bool = Field(False, description="Weight the loss by inverse class frequency.")
    early_end: int | None = Field(
        None, ge=1, description="End a trial whose validation loss has not fallen for this many evaluations."
    )
    metric: Metric = Field(
        "accuracy",
        description=f"Validation score that trials are ranked by: {', '.join(METRICS)}.",
    )
    positive: str | None = Field(
        None,
        description="With two classes, the positive one for AUROC and others; by default the second by name.",
    )
    seed: int = Field(0, ge=0, description="Seed of splits, data order, new layers and dropout.")

    @property
    def rungs(self) -> int:
        """Evaluations of a full trial."""
        return self.epochs * self.evaluations_per_epoch
