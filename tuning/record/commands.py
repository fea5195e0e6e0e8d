"""Commands of lorasweep as a person types them, for messages and for what can be done next.

Imported for `--help` too: nothing heavy.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

MLRUNS = Path("mlruns")
"""The folder of sweeps and records that a command uses."""
MLRUNS_VARIABLE = "LORASWEEP_MLRUNS"
"""The environment's variable that may name another."""


def shell_command(mlruns: Path, *words: str) -> str:
    """A command of lorasweep, ready to be pasted into a shell.

    Args:
        mlruns: the folder it is about; named where the command would look into another.
        words: verb, arguments and options.
    """
    here = Path(os.environ.get(MLRUNS_VARIABLE) or MLRUNS)
    return shlex.join(["lorasweep", *words, *(("--mlruns", str(mlruns)) if mlruns != here else ())])
