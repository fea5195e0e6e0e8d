"""`load`: an exported adapter, or one that MLflow holds, ready to label texts."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorasweep.libraries import quietly

if TYPE_CHECKING:
    import pandas as pd

    from lorasweep.training.inference.classifier import Classifier
    from lorasweep.training.settings import Precision
    from lorasweep.tuning.adapters.apply.evaluate import FileEvaluation

MLFLOW = ("models:/", "runs:/")


class Adapter:
    """A text classifier that was exported: an adapter on its base model, or a whole model.

    Made by `lorasweep.load`.

    Example:
        >>> adapter.predict(["Markets rally"]).loc[0, "label"] in adapter.label_names
        True

    Attributes:
        path: the folder it was loaded from.
        classifier: the model, its tokenizer and labels, for code that wants more than `predict`.
    """

    def __init__(self, classifier: Classifier, path: Path, keep: object = None) -> None:
        self.path = path
        self.classifier = classifier
        # A temporary folder lives as long as what holds it.
        self._keep = keep

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes, in the order of the model's outputs."""
        return self.classifier.label_names

    @quietly
    def predict(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        probabilities: bool = False,
        precision: Precision = "fp32",
    ) -> pd.DataFrame:
        """Label texts.

        Args:
            texts: a list, an array or a column of a DataFrame; a missing text is an empty one.
            pairs: the second text of each row, for an adapter that was trained on pairs.
            probabilities: also give the probability of every label, as a column `p_<label>` each.
            precision: `bf16` halves the time on a processor that has it.

        Returns:
            A row for each text: text, label, score (the label's probability). Where a text may have several labels,
            label and score are lists, the most probable label first.

        Raises:
            ModelError: two texts a row for an adapter that was trained on one.
            SettingsError: a single text in place of a list.
            DataError: a value that is no text, such as a list.

        Example:
            >>> adapter = lorasweep.load("best-adapter")
            >>> list(adapter.predict(["Markets rally as inflation cools"]).columns)
            ['text', 'label', 'score']
        """
        from lorasweep.tuning.adapters.apply.predict import as_texts, predict_frame, warn_of_gaps

        texts, pairs = as_texts(texts), None if pairs is None else as_texts(pairs)
        warn_of_gaps(self.classifier, texts, pairs)
        return predict_frame(self.classifier, texts, pairs, probabilities=probabilities, precision=precision)

    @quietly
    def evaluate(
        self,
        data: str | Path | pd.DataFrame,
        *,
        text: str | Sequence[str] = (),
        label: str | Sequence[str] | None = None,
        label_separator: str | None = None,
        columns: Sequence[str] = (),
        delimiter: str | None = None,
        encoding: str | None = None,
        sheet: str | None = None,
    ) -> FileEvaluation:
        """Score labelled rows: accuracy, macro-F1, loss, each class, calibration, confusions.

        Args:
            data: a file or a DataFrame.
            text: the text column, or two; those it was trained on if left out.
            label: the label column; recognised if left out. Of several labels a text also a column of 0 and 1 for
                each.
            label_separator: between several labels in a field; that of the training data if left out.
            columns: names for a CSV or TSV file without a header line.
            delimiter: what separates the columns of a CSV or TSV file, if not the suffix's comma or tab.
            encoding: of a text file; its bytes tell if left out.
            sheet: of a workbook that has several.

        Raises:
            DataError: rows that cannot be read, or no label that the adapter knows.

        Example:
            >>> rows = pd.DataFrame({"headline": ["Shares fall"], "section": [adapter.label_names[0]]})
            >>> adapter.evaluate(rows, label="section").rows
            1
        """
        from lorasweep.tuning.adapters.apply.evaluate import evaluate_file

        names = (text,) if isinstance(text, str) else tuple(text)
        path = data if not isinstance(data, str) else Path(data)
        return evaluate_file(
            self.classifier,
            path,
            adapter=self.path,
            text=names,
            label=label if isinstance(label, str) else tuple(label or ()),
            label_separator=label_separator,
            columns=tuple(columns),
            delimiter=delimiter,
            encoding=encoding,
            sheet=sheet,
        )

    def __repr__(self) -> str:
        return f"Adapter({str(self.path)!r}, {len(self.label_names)} labels)"


@quietly
def load(
    adapter: str | Path,
    *,
    device: str = "auto",
    tracking_uri: str | None = None,
    mlruns: str | Path = "mlruns",
) -> Adapter:
    """Load an exported adapter, or one from MLflow.

    Args:
        adapter: an exported folder, `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/ID`.
        device: `cpu`, `cuda`, one GPU such as `cuda:1`, or `auto` for a GPU where there is one.
        tracking_uri: the MLflow store of a model that is named so; `mlruns`'s own if left out.

    Raises:
        ModelError: no such folder, a broken one, or its base model cannot be found.
        SettingsError: MLflow holds nothing under this name.

    Example:
        >>> lorasweep.load("best-adapter")
        Adapter('best-adapter', 3 labels)
    """
    from lorasweep.training.inference.classifier import load_classifier

    if not str(adapter).startswith(MLFLOW):
        return Adapter(load_classifier(Path(adapter), device), Path(adapter))
    from lorasweep.tuning.tracking.models.fetch import fetch_adapter
    from lorasweep.tuning.tracking.store import prepare_store, tracking_store

    uri = tracking_store(tracking_uri, Path(mlruns))
    prepare_store(uri, Path(mlruns))
    keep = tempfile.TemporaryDirectory(prefix="lorasweep-")
    path = fetch_adapter(str(adapter), uri, Path(keep.name) / "adapter")
    return Adapter(load_classifier(path, device), path, keep)
