"""The command line's verbs for what comes out of a sweep: export, predict, evaluate, register."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorasweep.training.errors import SettingsError
from lorasweep.tuning.adapters import ExportFormat
from lorasweep.tuning.command_line import options as o
from lorasweep.tuning.command_line.options import MLRUNS, AsJson, SweepName
from lorasweep.tuning.terminal.console import console, print_json
from lorasweep.tuning.tracking.store import tracking_store

Adapter = Annotated[Path, typer.Option("--adapter", help="An exported folder.", show_default=False)]
Text = Annotated[
    list[str] | None,
    typer.Option("--text", help="The file's text column; twice for a pair.", show_default=False),
]
Columns = Annotated[
    str | None, typer.Option("--columns", help="Names for a file without a header.", show_default=False)
]
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
            "--format", help="An adapter, a whole transformers model (merged), or an ONNX model (onnx)."
        ),
    ] = "adapter",
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            "--push-to-hub", help="Upload it to this repository (a new one is private).", show_default=False
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="With --push-to-hub: a new repository is public.")
    ] = False,
    tracking_uri: o.TrackingUri = None,
    mlruns: o.Mlruns = MLRUNS,
) -> None:
    """Write the best trial as a folder, checked against the trial's own predictions."""
    from lorasweep.tuning.quiet import quiet_libraries
    from lorasweep.tuning.terminal.console import next_steps

    fetched = sweep is not None and sweep.startswith(("models:/", "runs:/"))
    if fetched and trial is not None:
        raise SettingsError(f"{sweep}: is an adapter as it was recorded; leave out --trial")
    if public and push_to_hub is None:
        raise SettingsError("export: --public goes with --push-to-hub")
    repo = None
    if push_to_hub is not None:
        from lorasweep.tuning.adapters.export.hub_upload import check_upload, push_folder

        repo = check_upload(push_to_hub)
    if sweep is not None and fetched:
        from lorasweep.tuning.tracking.models.fetch import fetch_as
        from lorasweep.tuning.tracking.store import prepare_store

        uri = tracking_store(tracking_uri, mlruns)
        prepare_store(uri, mlruns)
        quiet_libraries()
        with console.status("fetching and checking"):
            told = fetch_as(form, sweep, uri, out)
    else:
        from lorasweep.tuning.record.folder import find_sweep

        folder = find_sweep(mlruns, sweep)
        from lorasweep.tuning.adapters.export.sweep import export_sweep

        quiet_libraries()
        with console.status("exporting and checking"):
            told = export_sweep(folder, out, trial=trial, form=form).text()
    console.print(told, soft_wrap=True, markup=False)
    if repo is not None:
        with console.status("uploading"):
            address = push_folder(out, repo, public=public)
        console.print(f"{out}: uploaded to {address}", soft_wrap=True, markup=False)
    if form == "onnx":
        next_steps(console, [(str(out / "README.md"), "the lines that run it")])
    else:
        next_steps(console, [(f"lorasweep predict --adapter {out} {TRY_IT}", "try it")])


def predict(
    text: Annotated[
        list[str] | None, typer.Argument(help="Texts; - reads lines from standard input.", show_default=False)
    ] = None,
    adapter: Adapter = ...,  # type: ignore[assignment]
    file: Annotated[Path | None, typer.Option("--file", help="A file of texts.", show_default=False)] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="With --file: its rows with label and score, .csv, .tsv, .jsonl or .parquet.",
            show_default=False,
        ),
    ] = None,
    all_probabilities: Annotated[
        bool, typer.Option("--probabilities", help="With --out: a column for each label's probability.")
    ] = False,
    text_column: Text = None,
    columns: Columns = None,
    as_json: AsJson = False,
) -> None:
    """Label texts with an exported adapter."""
    from lorasweep.training.inference.classifier import load_classifier
    from lorasweep.tuning.command_line.to_config import split_names
    from lorasweep.tuning.quiet import quiet_libraries

    names, header = split_names(text_column or []), split_names(columns or "")
    if out is not None and (file is None or text):
        raise SettingsError("predict: --out goes with --file, and without texts as arguments")
    if all_probabilities and out is None:
        raise SettingsError("predict: --probabilities goes with --out")
    quiet_libraries()
    if file is not None and out is not None:
        from lorasweep.tuning.adapters.apply.predict_file import predict_file
        from lorasweep.tuning.adapters.apply.prediction_files import check_output

        check_output(out)
        found = predict_file(
            load_classifier(adapter),
            file,
            out,
            text=tuple(names),
            columns=tuple(header),
            all_probabilities=all_probabilities,
        )
        console.print(found.text(), soft_wrap=True, markup=False)
        return
    from lorasweep.tuning.adapters.apply.predict import print_predictions, read_inputs

    classifier = load_classifier(adapter)
    print_predictions(classifier, read_inputs(classifier, text or [], file, names, header), console, as_json)


def evaluate(
    adapter: Adapter = ...,  # type: ignore[assignment]
    data: Annotated[Path, typer.Option("--data", help="A file of labelled texts.", show_default=False)] = ...,  # type: ignore[assignment]
    text_column: Text = None,
    label: o.Label = None,
    columns: Columns = None,
    as_json: AsJson = False,
) -> None:
    """Score an exported adapter on labelled texts: accuracy, per class, calibration, confusions."""
    from lorasweep.training.inference.classifier import load_classifier
    from lorasweep.tuning.adapters.apply.evaluate import evaluate_file, evaluation_entries, evaluation_text
    from lorasweep.tuning.command_line.to_config import split_names
    from lorasweep.tuning.quiet import quiet_libraries

    quiet_libraries()
    with console.status("predicting"):
        found = evaluate_file(
            load_classifier(adapter),
            data,
            adapter=adapter,
            text=tuple(split_names(text_column or [])),
            label=label,
            columns=tuple(split_names(columns or "")),
        )
    if as_json:
        print_json(evaluation_entries(found))
    else:
        console.print(evaluation_text(found))


def register(
    sweep: SweepName = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The model's name [the sweep's].", show_default=False)
    ] = None,
    self_contained: Annotated[
        bool, typer.Option("--self-contained", help="Let the base model travel along.")
    ] = False,
    tracking_uri: o.TrackingUri = None,
    mlruns: o.Mlruns = MLRUNS,
) -> None:
    """Register the winner as a model version in MLflow: champion, or challenger of the present one."""
    from lorasweep.tuning.quiet import quiet_libraries
    from lorasweep.tuning.record.folder import find_sweep
    from lorasweep.tuning.terminal.console import next_steps
    from lorasweep.tuning.tracking.models.registry import check_name
    from lorasweep.tuning.tracking.store import prepare_store
    from lorasweep.tuning.tracking.thread import MLflowCopy

    folder = find_sweep(mlruns, sweep)
    model = name or folder.name
    check_name(model)
    config = folder.config()
    uri = tracking_store(tracking_uri or config.tracking_uri, mlruns)
    prepare_store(uri, mlruns)
    quiet_libraries()
    with console.status("packing, checking and registering"):
        registered = MLflowCopy(folder, uri).register(model, self_contained=self_contained)
    console.print(registered.text(), soft_wrap=True, markup=False)
    address = f"models:/{model}@{registered.alias}"
    next_steps(
        console,
        [
            (f"MLFLOW_TRACKING_URI={uri} mlflow models serve -m {address} --env-manager local", "serve it"),
            (f"lorasweep export {address} --out {model}", "take it along"),
        ],
    )
