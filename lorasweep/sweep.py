"""`Sweep`: what a sweep found, and what can be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorasweep.adapter import Adapter, load
from lorasweep.checking import check_labels
from lorasweep.comparing import compare
from lorasweep.driving import resume_folder
from lorasweep.exporting import Exported, export
from lorasweep.frames import compared_frame, trials_frame
from lorasweep.libraries import quietly
from lorasweep.tuning.record.finalists import searched_trials
from lorasweep.tuning.record.results import SweepResult, SweepState
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.winner import SweepWinner

if TYPE_CHECKING:
    import pandas as pd

    from lorasweep.tuning.adapters import ExportFormat
    from lorasweep.tuning.adapters.apply.evaluate import FileEvaluation
    from lorasweep.tuning.compare.compare import Comparison
    from lorasweep.tuning.record.config import SweepConfig
    from lorasweep.tuning.record.label_check import LabelCheck
    from lorasweep.tuning.tracking.models.registry import Registered


class Sweep:
    """A sweep as its folder holds it; made by `lorasweep.run`, `lorasweep.open` and `lorasweep.resume`.

    Each file is read once: open a sweep that runs again to see how far it has come.

    Example:
        >>> sweep = lorasweep.open("demo")
        >>> sweep.state
        'finished'
        >>> sweep.winner.id in set(sweep.trials["id"])
        True
    """

    def __init__(self, record: SweepRecord) -> None:
        self.record = record

    def tracking_store(self, tracking_uri: str | None = None) -> str:
        """The address of the MLflow store that has it, or of another one."""
        from lorasweep.tuning.tracking.store import tracking_store

        return tracking_store(tracking_uri or self.config.tracking_uri, self.record.folder.mlruns)

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.record.name

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.record.folder.path

    @property
    def state(self) -> SweepState:
        """`running`, `finished`, `interrupted` or `failed`."""
        return self.record.state

    @property
    def config(self) -> SweepConfig:
        """Everything it was asked to do."""
        return self.record.config

    @property
    def plan(self) -> dict[str, Any]:
        """What was worked out before its first trial: data, base model, resources, budget."""
        return self.record.plan

    @property
    def result(self) -> SweepResult | None:
        """How it ended; None while it has not."""
        return self.record.result

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row for each trial, the best first: id, state, score, the searched hyperparameters, scores, seconds.

        Example:
            >>> sweep.trials.loc[0, "id"] == sweep.winner.id
            True
        """
        return trials_frame(self.record)

    @cached_property
    def winner(self) -> SweepWinner | None:
        """The chosen trial; None before the sweep has finished.

        Example:
            >>> 0 <= sweep.winner.test.accuracy <= 1
            True
            >>> list(sweep.winner.compared.columns[:4])
            ['accuracy', 'macro_f1', 'loss', 'balanced_accuracy']
        """
        result, winner = self.record.result, self.record.winner
        if result is None or winner is None:
            return None
        return SweepWinner(
            winner.id,
            winner.hyperparameters,
            winner.score,
            winner.test,
            dict(winner.interval),
            winner.rule,
            compared_frame(result),
            winner.thresholds,
        )

    @cached_property
    def adapter(self) -> Adapter:
        """The winner's adapter, loaded.

        Raises:
            SettingsError: there is no winner.
            ExportError: its weights are gone.
        """
        _, winner = self.record.won("load")
        path = self.path / "best" / winner.id
        if not path.is_dir():
            export(self, path)
        return load(path)

    def predict(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, probabilities: bool = False
    ) -> pd.DataFrame:
        """Label texts with the winner; see `Adapter.predict`.

        Example:
            >>> sweep.predict(["Markets rally as inflation cools"]).shape
            (1, 3)
        """
        return self.adapter.predict(texts, pairs, probabilities=probabilities)

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
        """Score the winner on labelled rows; see `Adapter.evaluate`.

        Example:
            >>> sweep.evaluate("rows.csv", text="text", label="label").rows
            60
        """
        return self.adapter.evaluate(
            data,
            text=text,
            label=label,
            label_separator=label_separator,
            columns=columns,
            delimiter=delimiter,
            encoding=encoding,
            sheet=sheet,
        )

    def export(
        self,
        out: str | Path,
        format: ExportFormat = "adapter",
        *,
        trial: str | None = None,
        push_to_hub: str | None = None,
        public: bool = False,
    ) -> Exported:
        """Write the winner, or another trial, as a folder; see `lorasweep.export`.

        Example:
            >>> sweep.export("best-adapter").path
            PosixPath('best-adapter')
        """
        return export(self, out, format, trial=trial, push_to_hub=push_to_hub, public=public)

    @quietly
    def report(self, out: str | Path | None = None) -> Path:
        """Write one HTML page: plots, all trials, the winner and its mistakes.

        Args:
            out: the page; `NAME.html` if left out.

        Example:
            >>> sweep.report("demo.html")
            PosixPath('demo.html')
        """
        from lorasweep.tuning.report.page import write_report

        return write_report(self.record.folder, Path(out or f"{self.name}.html"))

    def check_labels(
        self, out: str | Path | None = None, *, folds: int = 5, rows: int | None = None, verbose: int = True
    ) -> LabelCheck:
        """Find training rows whose label is probably wrong: the winner's settings, trained on others, contradict it.

        Interrupted, the same call goes on: a fold that is done is not trained again.

        Args:
            out: a new file for these rows, with an empty column `correct`; filled, `run(corrections=...)` takes it.
            folds: each row is predicted by one of so many trainings, on the rows of the other folds.
            rows: write only so many, the most contradicted first.
            verbose: show what is done.

        Raises:
            SettingsError: the sweep has not finished, or has fewer rows than folds.
            ExportError: the file exists, or cannot be written.
            TrainingError: a fold failed.

        Example:
            >>> check = sweep.check_labels("check.csv")  # doctest: +SKIP
            >>> check.share, check.frame()  # doctest: +SKIP
        """
        return check_labels(self.record.folder, out, folds, rows, verbose)

    def compare(self, **options: Any) -> Comparison:
        """Train full fine-tuning, untuned LoRA and the winner side by side; see `lorasweep.compare`.

        Example:
            >>> sweep.compare(max_train_rows=200, epochs=1).rows.shape[0]  # doctest: +SKIP
            5
        """
        return compare(sweep=self.name, mlruns=self.record.folder.mlruns, **options)

    @quietly
    def register(
        self, name: str | None = None, *, self_contained: bool = False, tracking_uri: str | None = None
    ) -> Registered:
        """Register the winner as a model version in MLflow: champion, or challenger of the present one.

        Args:
            name: the registered model; the sweep's name if left out.
            self_contained: let the base model travel along.
            tracking_uri: the MLflow store; the sweep's own if left out.

        Raises:
            SettingsError: there is no winner, or the store does not answer.

        Example:
            >>> sweep.register("news").alias
            'champion'
        """
        from lorasweep.tuning.tracking.models.registry import check_name
        from lorasweep.tuning.tracking.store import prepare_store
        from lorasweep.tuning.tracking.thread import MLflowCopy

        model, folder, uri = name or self.name, self.record.folder, self.tracking_store(tracking_uri)
        check_name(model)
        prepare_store(uri, folder.mlruns)
        return MLflowCopy(folder, uri).register(model, self_contained=self_contained)

    @quietly
    def publish(self, tracking_uri: str | None = None) -> None:
        """Fill MLflow from the sweep's folder with whatever it lacks, as often as you like.

        Args:
            tracking_uri: another MLflow store than the sweep's own.

        Raises:
            SettingsError: the store does not answer, or does not take all of it.

        Example:
            >>> sweep.publish()
        """
        from lorasweep.tuning.sweep.start import publish

        publish(self.record.folder, tracking_uri)

    @quietly
    def resume(
        self, *, retry_failed: bool = False, confirm: str | None = None, verbose: bool = True, **options: Any
    ) -> Sweep:
        """Go on where the sweep stopped; see `lorasweep.resume`.

        Example:
            >>> sweep.resume()
            Traceback (most recent call last):
            ...
            lorasweep.training.errors.SettingsError: sweep demo: has finished; see: lorasweep status demo
        """
        resume_folder(self.record.folder, verbose, retry_failed, confirm, options)
        return Sweep(SweepRecord(self.record.folder))

    def __repr__(self) -> str:
        return f"Sweep({self.name!r}, {self.state}, {len(searched_trials(self.record.trials))} trials)"

    def __rich__(self) -> Any:
        from lorasweep.tuning.terminal.result import result_text

        return result_text(self.record)

    def _repr_html_(self) -> str:
        from lorasweep.display import to_html

        return to_html(self)
