from collections.abc import Sequence

"""The one exception family for what a user can mend."""


class LorasweepError(Exception):
    """Something a user can mend: bad input, a missing file, a setting that cannot work.

    The message is one line that says what was wrong, the value, where it stood and what to do.
    The command line prints it without a traceback and exits with 2. Anything that is not a
    `LorasweepError` is a bug and keeps its traceback.
    """


def missing_extra(extra: str) -> str:
    """The command that installs an extra of lorasweep, for messages: it is installed from a clone."""
    return f"pip install -e '.[{extra}]' in lorasweep's folder"


def first_line(error: BaseException) -> str:
    """The first line of what a library says."""
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__


class DataError(LorasweepError):
    """A file of texts that cannot be read, or does not hold what a sweep needs."""


class ModelError(LorasweepError):
    """A base model or an adapter folder that cannot be loaded or adapted."""


class SettingsError(LorasweepError):
    """A setting, a search space or a sweep's name that is not allowed."""


class TrainingError(LorasweepError):
    """A trial that cannot go on: a loss that is not finite, memory that does not suffice."""


class ExportError(LorasweepError):
    """Nothing to export, no place for it, or a folder that predicts otherwise than the trial did."""


class SweepStoppedError(LorasweepError):
    """A sweep that had to stop and can go on when what stopped it is mended, such as a full disk."""


def shown(values: Sequence[object], limit: int = 20) -> str:
    """Values for one line of a message: quoted, each cut at 60 characters, at most `limit` of them."""
    words = [text if len(text := repr(value)) <= 60 else text[:57] + "..." for value in values]
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more if words else "none"
