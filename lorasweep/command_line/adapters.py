"""The command line's verbs for what comes out of a sweep: export, predict, evaluate, register."""

from __future__ import annotations

import logging
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

import lorasweep
from lorasweep.command_line.options import (
    MLRUNS,
    AsJson,
    Columns,
    Delimiter,
    Encoding,
    LabelColumn,
    LabelSeparator,
    Mlruns,
    Sheet,
    SweepName,
    TextColumn,
    TrackingUri,
)
from lorasweep.options import split_names
from lorasweep.training.errors import SettingsError
from lorasweep.tuning.adapters.export.formats import FORMATS, ExportFormat
from lorasweep.tuning.record.commands import shell_command
from lorasweep.tuning.terminal.console import console, next_steps, print_json

Adapter = Annotated[Path, typer.Option("--adapter", help="An exported folder.", show_default=False)]
log = logging.getLogger("lorasweep")

TRY_IT = '"Markets rally as inflation cools"'


def export(
    sweep: Annotated[
        str | None,
        typer.Argument(
            help="A sweep's name (the newest if left out), models:/NAME@champion or runs:/ID.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write; must not exist.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    trial: Annotated[
        str | None, typer.Option("--trial", help="A trial's id; the winner if left out.", show_default=False)
    ] = None,
    form: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="; ".join(f"{name}: {entry.about}" for name, entry in FORMATS.items()) + ".",
        ),
    ] = "adapter",
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            "--push-to-hub",
            help="Upload the folder to this repository of the Hugging Face hub, ACCOUNT/NAME; a new one is private.",
            show_default=False,
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="With --push-to-hub: make a new repository public.")
    ] = False,
    tracking_uri: TrackingUri = None,
    mlruns: Mlruns = MLRUNS,
) -> None:
    """Write the best trial as a folder, checked against the trial's own predictions."""
    with console.status("exporting and checking"):
        exported = lorasweep.export(
            sweep,
            out,
            form,
            trial=trial,
            push_to_hub=push_to_hub,
            public=public,
            tracking_uri=tracking_uri,
            mlruns=mlruns,
        )
    console.print(exported.text, markup=False)
    if exported.uploaded is not None:
        console.print(f"{out}: uploaded to {exported.uploaded}", markup=False)
    if not FORMATS[form].runs_here:
        next_steps(console, [(f"cat {quote(str(out / 'README.md'))}", "the lines that run it")])
    else:
        next_steps(console, [(f"lorasweep predict --adapter {quote(str(out))} {TRY_IT}", "try it")])


def predict(
    text: Annotated[
        list[str] | None, typer.Argument(help="Texts; - reads lines from standard input.", show_default=False)
    ] = None,
    adapter: Adapter = ...,  # type: ignore[assignment]
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            help="File of texts: any format of --data, or .txt with one text a line.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="With --file: its rows with label and score, {written formats}.",
            show_default=False,
        ),
    ] = None,
    all_probabilities: Annotated[
        bool, typer.Option("--probabilities", help="With --out: a column for each label's probability.")
    ] = False,
    text_column: TextColumn = None,
    columns: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    sheet: Sheet = None,
    as_json: AsJson = False,
) -> None:
    """Label texts with an exported adapter."""
    from lorasweep.training.files.tables import open_table
    from lorasweep.tuning.adapters.apply.predict import print_predictions, read_inputs
    from lorasweep.tuning.adapters.apply.predict_file import check_output, predict_file

    names = split_names(text_column or [])
    if out is not None and (file is None or text):
        raise SettingsError("predict: --out goes with --file, and without texts as arguments")
    if encoding is not None and file is None:
        raise SettingsError("predict: --encoding goes with --file")
    if sheet is not None and file is None:
        raise SettingsError("predict: --sheet goes with --file")
    if all_probabilities and out is None:
        raise SettingsError("predict: --probabilities goes with --out")
    if out is not None:
        check_output(out)
    # A broken file is refused before anybody has waited for the model.
    rows = None
    if file is not None:
        rows = open_table(file, tuple(split_names(columns or "")), delimiter, encoding, sheet)
        for note in rows.notes:
            log.warning("%s", note)
    loaded = lorasweep.load(adapter)
    if rows is not None and out is not None:
        written = predict_file(loaded.classifier, rows, out, text=names, all_probabilities=all_probabilities)
        console.print(written.text(), markup=False)
        return
    texts, pairs = read_inputs(loaded.classifier, text or [], rows, names)
    predictions = loaded.predict(texts, pairs)
    if not as_json:
        print_predictions(predictions, console)
        return
    for row in predictions.to_dict("records"):
        print_json(row, indent=None)


def evaluate(
    adapter: Adapter = ...,  # type: ignore[assignment]
    data: Annotated[Path, typer.Option("--data", help="A file of labelled texts.", show_default=False)] = ...,  # type: ignore[assignment]
    text_column: TextColumn = None,
    label: LabelColumn = None,
    label_separator: LabelSeparator = None,
    columns: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    sheet: Sheet = None,
    as_json: AsJson = False,
) -> None:
    """Score an exported adapter on labelled texts: accuracy, per class, calibration, confusions."""
    from lorasweep.tuning.adapters.apply.evaluate import evaluation_entries
    from lorasweep.tuning.adapters.apply.evaluation_text import evaluation_text

    with console.status("predicting"):
        evaluation = lorasweep.load(adapter).evaluate(
            data,
            text=split_names(text_column or []),
            label=split_names(label or []),
            label_separator=label_separator,
            columns=split_names(columns or ""),
            delimiter=delimiter,
            encoding=encoding,
            sheet=sheet,
        )
    if as_json:
        print_json(evaluation_entries(evaluation))
    else:
        console.print(evaluation_text(evaluation))


def register(
    sweep: SweepName = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The model's name [the sweep's].", show_default=False)
    ] = None,
    self_contained: Annotated[
        bool,
        typer.Option(
            "--self-contained",
            help="Store the base model with the version, so that it is served without the hub.",
        ),
    ] = False,
    tracking_uri: TrackingUri = None,
    mlruns: Mlruns = MLRUNS,
) -> None:
    """Register the winner as a model version in MLflow: champion, or challenger of the present one."""
    opened = lorasweep.open(sweep, mlruns=mlruns)
    with console.status("packing, checking and registering"):
        registered = opened.register(name, self_contained=self_contained, tracking_uri=tracking_uri)
    console.print(registered.text(), markup=False)
    model = registered.name
    address = f"models:/{model}@{registered.alias}"
    store = opened.tracking_store(tracking_uri)
    next_steps(
        console,
        [
            (
                f"MLFLOW_TRACKING_URI={quote(store)} mlflow models serve -m {quote(address)} --env-manager local",
                "serve it",
            ),
            (shell_command(mlruns, "export", address, "--out", model), "take it along"),
        ],
    )
