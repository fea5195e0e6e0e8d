"""What a trial's process loads. What a trial does there is tested by whole sweeps."""

from __future__ import annotations

import subprocess
import sys


def test_a_trials_process_has_no_library_that_only_the_driver_needs() -> None:
    # Each trial at once pays for an import with its memory, and each worker with its start.
    code = (
        "import sys, lorasweep.tuning.trials.trial as t; print({'sklearn', 'scipy', 'mlflow', 'sqlalchemy'}"
        " & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"
