"""The one exception family for what a user can fix."""

from __future__ import annotations

from collections.abc import Sequence


class LorasweepError(Exception):
    """Something a user can fix: bad input, a missing file, a setting that cannot work.

    The message is one line: what was wrong, the value, where it stood and what to do. The command line prints
    it without a traceback and exits with 2. Any other exception is a bug and keeps its traceback.
    """


class DataError(LorasweepError):
    """Texts cannot be read, or do not hold what a sweep needs."""


class ModelError(LorasweepError):
    """A base model or an adapter folder cannot be loaded or adapted."""


class SettingsError(LorasweepError):
    """A setting, a search space or a sweep's name is not allowed."""


class SettingError(SettingsError):
    """A setting whose value cannot be.

    Attributes:
        place: its keys in the configuration.
        value: what it is; `...` where there is none.
        problem: what is wrong with it, or what to do.
        source: the file that has it, or `settings`.
    """

    def __init__(
        self, place: Sequence[str], problem: str, *, value: object = ..., source: str = "settings"
    ) -> None:
        self.place, self.value, self.problem, self.source = tuple(place), value, problem, source
        named = ".".join(self.place) + (f": {value!r}" if value is not ... else "")
        super().__init__(f"{source}: {named or 'all of it'}: {problem}")


class TrainingError(LorasweepError):
    """A trial cannot continue: its loss is not finite, or memory is too small."""


class ExportError(LorasweepError):
    """There is nothing to export or no place for it, or the folder predicts differently from the trial."""


class SweepStoppedError(LorasweepError):
    """A sweep had to stop, and can be resumed once the cause is fixed, such as a full disk."""


def missing_extra(extra: str) -> str:
    """The command that installs an extra of lorasweep, for messages: it is installed from a clone."""
    return f"pip install -e '.[{extra}]' in lorasweep's folder"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 160 characters."""
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__


def shown(values: Sequence[object], limit: int = 20) -> str:
    """Values for a message of one line: quoted, at most 60 characters each, and at most `limit` of them."""
    words = [text if len(text := repr(value)) <= 60 else text[:57] + "..." for value in values]
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more if words else "none"


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 row", "2,000 rows"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
