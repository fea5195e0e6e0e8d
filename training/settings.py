"""The settings of data and training: what a search may vary, and what all trials of a sweep share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Method = Literal["lora", "rslora", "dora", "full"]
Precision = Literal["auto", "bf16", "fp16", "fp32"]
Metric = Literal["accuracy", "macro_f1", "loss"]


def higher_is_better(metric: Metric) -> bool:
    """Whether a larger value of the metric is the better one."""
    return metric != "loss"


Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]

# The base model that a Python package carries, by its short name.
MINILM = "minilm"


class Settings(BaseModel):
    """Base of every settings tree: unknown keys are refused, nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(Settings):
    """Where the texts are, which columns count, and how the rows are split."""

    path: str | None = Field(
        default=None, description="file of (training) rows; none = the embedded sample news"
    )
    validation_path: str | None = Field(
        default=None, description="file of validation rows; none = a part of the training rows"
    )
    test_path: str | None = Field(
        default=None, description="file of test rows; none = a part of the training rows"
    )
    text: Names = Field(default=(), description="one text column, or two read as a pair; none = recognised")
    label: str | None = Field(default=None, description="label column; none = recognised")
    columns: Names = Field(default=(), description="column names of a CSV or TSV without a header line")
    split_column: str | None = Field(default=None, description="column that says train, validation or test")
    split_by: Literal["random", "date"] = Field(
        default="random", description="how splits are carved: stratified by seed, or the newest rows as test"
    )
    date: str | None = Field(default=None, description="date column of a split by date; none = recognised")
    merge_labels: str | None = Field(
        default=None, description="shipped map of labels that mean the same, or a YAML file with one"
    )
    max_train_rows: int | None = Field(
        default=None, ge=1, description="a stratified part of the training rows"
    )
    max_validation_rows: int | None = Field(
        default=None, ge=1, description="a stratified part of the validation rows"
    )
    keep_small_classes: bool = Field(
        default=False, description="keep classes too small to stand in every split"
    )


class Hyperparameters(Settings):
    """What a search space may vary from trial to trial.

    This is the place to add a hyperparameter: one field here, and the code of a trial that uses it. Search spaces,
    tables, cards and plots take name, limits and description from the field. Two notes may go with it, in
    `json_schema_extra`: `short`, its name in narrow tables, and `adapter_only`, without use in full fine-tuning.

    The defaults are a good start for LoRA on short texts: every linear layer of the encoder, and a
    learning rate about ten times that of full fine-tuning (Schulman et al., "LoRA Without Regret", 2025).
    """

    method: Method = Field("lora", description="lora, rslora (alpha / sqrt(rank)), dora, or full fine-tuning")
    rank: int = Field(
        16, ge=1, le=1024, description="rank of the update B·A", json_schema_extra={"adapter_only": True}
    )
    alpha: float = Field(
        32,
        gt=0,
        description="numerator of the update's scale, alpha / rank",
        json_schema_extra={"adapter_only": True},
    )
    target_modules: str = Field(
        "all-linear",
        min_length=1,
        description="preset name, or a regular expression over module names",
        json_schema_extra={"short": "targets", "adapter_only": True},
    )
    learning_rate: float = Field(
        1e-3, gt=0, le=1, description="AdamW's peak learning rate", json_schema_extra={"short": "rate"}
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="dropout in front of the LoRA matrices",
        json_schema_extra={"adapter_only": True},
    )
    base_dropout: float | None = Field(
        None, ge=0, lt=1, description="dropout inside the base model; none = 0 for adapters, its own for full"
    )
    batch_size: int = Field(
        32, ge=1, description="rows of one optimiser step", json_schema_extra={"short": "batch"}
    )
    weight_decay: float = Field(
        0.01,
        ge=0,
        description="AdamW's decoupled weight decay, matrices only",
        json_schema_extra={"short": "decay"},
    )
    warmup: float = Field(0.06, ge=0, le=1, description="share of all steps in which the rate rises from 0")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this global norm")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all labels")


UNTUNED = Hyperparameters(rank=8, alpha=16, target_modules="query-value", learning_rate=2e-5)
"""The usual untuned choice that a sweep's winner is compared with: a rate fit for full fine-tuning."""


class TrainingSettings(Settings):
    """What all trials of a sweep share, so that settings are compared and not luck."""

    epochs: int = Field(3, ge=1, description="passes over the training rows in a full trial")
    evaluations_per_epoch: int = Field(2, ge=1, description="evaluations in an epoch; each is a rung of ASHA")
    precision: Precision = Field("auto", description="auto: bf16 in hardware, else fp16 on CUDA, else fp32")
    max_length: int = Field(128, ge=4, description="tokens of a text that are read; the rest is cut off")
    micro_batch_size: int | None = Field(
        None, ge=1, description="rows on the device at once; fewer than the batch size accumulates gradients"
    )
    class_weights: bool = Field(False, description="weigh the loss by inverse class frequency")
    metric: Metric = Field("accuracy", description="the validation score that trials are compared by")
    seed: int = Field(0, ge=0, description="seed of splits, data order, new layers and dropout")

    @property
    def rungs(self) -> int:
        """Evaluations of a full trial."""
        return self.epochs * self.evaluations_per_epoch
