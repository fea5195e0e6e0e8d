"""The command line's verbs that bring data sets: `lorasweep data huffpost`."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from lorasweep.command_line.verbs import App
from lorasweep.training.errors import DataError, first_line, missing_extra
from lorasweep.tuning.terminal.console import console, next_steps

app = App(
    name="data",
    help="Download a public data set and check it.",
    no_args_is_help=True,
)


@app.callback()
def _data() -> None:
    # With it a single verb stays a verb of its own, and others can come beside it.
    pass


@app.command()
def huffpost(
    out: Annotated[Path, typer.Option("--out", help="Folder for the file.")] = Path(),
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", help="Check a file that you downloaded yourself; it may be packed.", show_default=False
        ),
    ] = None,
) -> None:
    """HuffPost's News Category data set from Kaggle: 209,527 headlines of 42 categories, 2012 to 2022.

    Rows, keys, categories and dates are checked, and the sha256 is written beside the file.
    """
    from lorasweep.training.data.huffpost import FILE, check_huffpost, recorded_sha256

    path = file or out / FILE
    if file is None and not path.exists():
        with console.status("downloading from Kaggle"):
            download(path)
    with console.status("checking"):
        check = check_huffpost(path)
    first = f"{check.rows:,} rows, {len(check.classes)} categories, {check.first_date} to {check.last_date}"
    sizes = list(check.classes.items())
    (largest, most), (smallest, least) = sizes[0], sizes[-1]
    console.print(f"{path}: {first}", markup=False)
    console.print(f"from {smallest} ({least:,} rows) to {largest} ({most:,} rows)", markup=False)
    console.print(f"sha256 {check.sha256}")
    if problems := check.problems():
        raise DataError(
            f"{path}: not the whole set ({'; '.join(problems)}): scores on it do not compare with published ones; "
            f"for the whole set: {by_hand(out)}"
        )
    record = path.with_name(f"{path.name}.sha256.json")
    before = recorded_sha256(record)
    if before not in (None, check.sha256):
        console.print(f"its sha256 was {before} when it was last checked: the file was changed")
    try:
        check.write(record)
        console.print(f"this is the whole set; recorded in {record}", markup=False)
    except OSError as error:
        console.print(f"this is the whole set; {record} cannot be written ({error.strerror})")
    run = f"lorasweep run --data {quote(str(path))} --base-model google-bert/bert-base-uncased"
    next_steps(
        console,
        [
            (run, "search on it"),
            (f"{run} --merge-labels huffpost", "take near-double categories for one"),
            (f"{run} --split-by date", "test on the newest rows"),
        ],
    )


def download(path: Path) -> None:
    """Bring the file from Kaggle to `path`, whole or not at all.

    Raises:
        DataError: kagglehub is not installed, or did not bring the file; what to do by hand is said.
    """
    from lorasweep.training.data.huffpost import FILE, HANDLE

    try:
        import kagglehub
    except ImportError:
        raise DataError(
            f"the set is downloaded with kagglehub, which is not installed: run {missing_extra('kaggle')}, "
            f"or by hand: {by_hand(path.parent)}"
        ) from None
    made = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".huffpost-", dir=path.parent) as folder:
            brought = Path(
                kagglehub.dataset_download(HANDLE, path=FILE, output_dir=str(Path(folder) / "set"))
            )
            # Given one file, kagglehub has named both the file and the folder that it lies in.
            shutil.move(brought / FILE if brought.is_dir() else brought, path)
    except Exception as error:  # of the network, of Kaggle, of the disk: kagglehub has no family of its own
        if made:
            with suppress(OSError):
                path.parent.rmdir()
        raise DataError(
            f"{HANDLE} could not be downloaded from Kaggle ({type(error).__name__}: {first_line(error)}); by hand: "
            f"{by_hand(path.parent)}"
        ) from error


def by_hand(folder: Path) -> str:
    """What to do where the download does not work."""
    from lorasweep.training.data.huffpost import FILE, PAGE

    target = folder / FILE
    return (
        f"press Download on {PAGE}, put {FILE} from the archive at {target}, then: "
        f"lorasweep data huffpost --file {quote(str(target))}"
    )
