"""`Sweep.check_labels`: training rows whose label is probably wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lorasweep.display import Waiting
from lorasweep.libraries import quietly
from lorasweep.training.errors import SettingsError

if TYPE_CHECKING:
    from lorasweep.tuning.record.folder import SweepFolder
    from lorasweep.tuning.record.label_check import LabelCheck


@quietly
def check_labels(
    folder: SweepFolder, out: str | Path | None, folds: int, rows: int | None, verbose: int
) -> LabelCheck:
    """Check the training labels of a finished sweep; see `Sweep.check_labels`."""
    from lorasweep.tuning.adapters.apply.predict_file import check_output
    from lorasweep.tuning.adapters.apply.write_frame import write_frame
    from lorasweep.tuning.sweep.check_labels import check_labels

    if rows is not None and rows < 1:
        raise SettingsError(f"--rows {rows}: ask for at least 1, or leave it out for all")
    if out is not None:
        # Before anybody has waited for the folds.
        check_output(Path(out))
    with Waiting(verbose, "reading the sweep") as phase:
        found = check_labels(folder, folds, phase)
    if out is not None:
        write_frame(found.frame(rows), Path(out))
    return found
