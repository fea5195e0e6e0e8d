"""The YAML block of a model card: what a model hub reads of it, by the hub's own rules.

The rules are those of https://github.com/huggingface/hub-docs/blob/main/modelcard.md. A block that breaks one of
them is refused when the folder is pushed, so what cannot be said by them is left to the card's text.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.files.formats import FORMATS
from lorasweep.training.files.unpacked import table_format
from lorasweep.training.model.base_model import MINILM_HUB_ID
from lorasweep.training.model.hub import BaseModel
from lorasweep.tuning.record.results import TestScores
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.record.words import one_line

TASK = "text-classification"
# The hub's form of a licence's id, such as apache-2.0; it refuses any other text.
LICENCE_ID = re.compile(r"[a-z0-9][a-z0-9.+-]{0,49}")
OTHER_READER = "local-file"
SAMPLE_TYPE = "lorasweep-sample-news"


def card_metadata(
    name: str,
    base: BaseModel,
    trial: TrialRecord,
    data: Dataset,
    test: TestScores | None,
    *,
    sample: bool,
) -> str:
    """The YAML block, without the lines of hyphens around it.

    Args:
        name: the model's, in the index of its results.
        test: the exported trial's scores on the test split, if it was scored there.
        sample: the data are the embedded sample.
    """
    from huggingface_hub import ModelCardData

    method = trial.hyperparameters.method
    tags = [TASK, "lorasweep"] + ([] if method == "full" else ["lora"])
    results = _results(data, test, sample) if test else []
    entries: dict[str, Any] = {
        "library_name": "transformers" if method == "full" else "peft",
        "pipeline_tag": TASK,
        "tags": tags + ([method] if method not in ("lora", "full") else []),
    }
    if base.hub_id is not None:
        # A folder of this machine has no name that the hub would take.
        entries["base_model"] = base.hub_id
    if sample:
        entries["language"] = "en"
    licence = base_licence(base)
    if licence and licence != "other" and LICENCE_ID.fullmatch(licence):
        # "other" needs a name and a link of its own, which belong to the base model's page.
        entries["license"] = licence
    if results:
        entries |= {"metrics": ["accuracy", "f1"], "model_name": name, "eval_results": results}
    return str(ModelCardData(**entries).to_yaml())


def _results(data: Dataset, test: TestScores, sample: bool) -> list[Any]:
    """The test split's scores as the index's entries; a score that is no number is left out."""
    from huggingface_hub import EvalResult

    first = data.source.partition(" + ")[0]
    # The hub wants a data set's id here, and a file of the user's has none: a reader's name claims nothing.
    reader = FORMATS.get(table_format(first))
    kind = SAMPLE_TYPE if sample else (reader.loader if reader else "") or OTHER_READER
    metrics: list[tuple[str, str, float, dict[str, Any] | None]] = [
        ("accuracy", "Accuracy", test.accuracy, None),
        ("f1", "Macro F1", test.macro_f1, {"average": "macro"}),
        ("loss", "Cross entropy (nats)", test.loss, None),
    ]
    return [
        EvalResult(
            task_type=TASK,
            task_name="Text Classification",
            dataset_type=kind,
            dataset_name=one_line(data.source),
            dataset_split="test",
            metric_type=metric,
            metric_name=name,
            metric_value=round(value, 4),
            metric_args=arguments,
        )
        for metric, name, value, arguments in metrics
        if math.isfinite(value)
    ]


def base_licence(base: BaseModel) -> str | None:
    """The base model's licence as its own card states it, where that card is on this machine."""
    from huggingface_hub import ModelCard, try_to_load_from_cache

    path: Any = Path(base.location) / "README.md"
    if base.hub_id == base.location:
        path = try_to_load_from_cache(base.location, "README.md", revision=base.revision)
    licence = None
    if isinstance(path, str | Path) and Path(path).is_file():
        try:
            licence = ModelCard.load(path, ignore_metadata_errors=True).data.get("license")
        except Exception:  # somebody else's card, of any form: no licence is known from it
            licence = None
    if isinstance(licence, str) and licence.strip():
        return licence
    return "apache-2.0" if base.hub_id == MINILM_HUB_ID else None
