"""An exported folder as a whole transformers model. Nothing else writes merged weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lorasweep.training.data.dataset import Texts
from lorasweep.training.inference.classifier import Classifier, load_classifier, predict
from lorasweep.training.inference.folder import quiet_loading, read_folder
from lorasweep.training.model.classifier import merge_adapter
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.sample_news.sample import sample_news
from lorasweep.tuning.adapters.card.converted import CARD_FILE, converted_card
from lorasweep.tuning.adapters.card.loading import merged_lines
from lorasweep.tuning.adapters.export.verify import fp32_tolerance, largest_difference, verify_export
from lorasweep.tuning.adapters.export.weights import judged_entries, reading_entries, write_parts

# Made-up rows to compare on, for want of others.
SAMPLE_ROWS = 60


def write_merged(folder: Path, stage: Path, name: str, rows: Texts | None = None) -> str:
    """Write a whole transformers model, load it back and compare its predictions with the folder's.

    Args:
        folder: an exported adapter, or a whole model already.
        stage: the folder to write into.
        name: what the folder will be called.
        rows: to compare on; made-up news if left out.

    Returns:
        What to tell the user, after the folder's name.

    Raises:
        ExportError: the folder, loaded back, predicts otherwise.
        ModelError: `folder` cannot be loaded.
    """
    classifier = load_classifier(folder, device="cpu", dequantized=True)
    rows = rows or sample_rows(classifier)
    expected = predict(classifier, rows.text, rows.pair)  # before the merge, which changes the model
    told = dequantized_text(folder, rows, expected)
    model: Any = merge_adapter(classifier.model)
    with quiet_loading():
        model.save_pretrained(stage)
    write_classifier_parts(classifier, model.config, stage)
    amp = AmpPolicy("fp32", torch.device("cpu"))
    difference = verify_export(stage, rows, expected, amp, fp32_tolerance(expected))
    introduction = f"A transformers model that {task_words(classifier)}."
    if told:
        introduction += f" Verified against the adapter{told}."
    lines = merged_lines(
        name, classifier.text_columns, classifier.long, classifier.cut, classifier.multi_label
    )
    card = converted_card(folder, name, "transformers", introduction, lines)
    (stage / CARD_FILE).write_text(card, encoding="utf-8")
    return (
        "a whole model; loaded back with plain transformers it predicts what it was made from does on "
        f"{len(expected)} rows (logits differ by at most {difference:.2g} in fp32){told}"
    )


def dequantized_text(folder: Path, rows: Texts, dequantized: np.ndarray) -> str:
    """What an adapter on a quantised base model has become by de-quantising, in words; empty for any other folder.

    Args:
        dequantized: logits of the de-quantised classifier; float32, shape (rows, classes).

    Raises:
        ExportError: it predicts otherwise than the quantised one.
    """
    quantize = read_folder(folder).quantize
    if quantize is None:
        return ""
    logits = predict(load_classifier(folder, device="cpu"), rows.text, rows.pair)
    tolerance = fp32_tolerance(logits)
    if quantize == "int8":
        # It also quantises the inputs of its layers, which a plain model has no way to do: told, but no error.
        tolerance = math.inf
    problem = f"de-quantised from {quantize}, the base model does not predict what the quantised one did"
    difference = largest_difference(logits, dequantized, tolerance, problem, "Export the adapter instead.")
    return (
        f"; its base model is de-quantised from {quantize}, so it is as large as any other "
        f"(logits differ by at most {difference:.2g} from those on the quantised one)"
    )


def task_words(classifier: Classifier) -> str:
    """What a classifier does: "sorts texts into 3 classes"."""
    number = len(classifier.label_names)
    if classifier.multi_label:
        return f"gives texts any of {number} labels, or none"
    return f"sorts texts into {number} classes"


def sample_rows(classifier: Classifier) -> Texts:
    """Made-up news: headline and description as two texts or as one, as the classifier reads them."""
    frame = sample_news(SAMPLE_ROWS)
    first, second = frame["headline"].tolist(), frame["short_description"].tolist()
    unknown = np.full(len(first), -1)
    if len(classifier.text_columns) == 2:
        return Texts(first, second, unknown)
    return Texts([f"{one} {other}" for one, other in zip(first, second, strict=True)], None, unknown)


def write_classifier_parts(classifier: Classifier, config: Any, stage: Path) -> None:
    """Write tokenizer and config.json, with labels, text columns and the length that is read."""
    own = reading_entries(classifier.text_columns, classifier.max_length, classifier.long)
    own |= judged_entries(classifier.positive, classifier.thresholds)
    if classifier.multi_label:
        own["label_separator"] = classifier.label_separator
    write_parts(stage, classifier.tokenizer, config, classifier.label_names, own, classifier.multi_label)
