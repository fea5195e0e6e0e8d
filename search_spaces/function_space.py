"""A search space as a Python function in Optuna's define-by-run style, for what YAML cannot say."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna

from lorasweep.search_spaces.domains import from_distribution
from lorasweep.search_spaces.fields import make_hyperparameters
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Hyperparameters

PROBES = 32
"""Trial runs of a function before a sweep: enough to meet the branches of a usual condition."""


@dataclass(frozen=True)
class FunctionSpace:
    """`function(trial)` from the Python file at `path`.

    The function suggests hyperparameters by their names, and may return a dict of those that it works
    out itself. A suggested name that begins with an underscore is a helper: it is searched, but is no
    hyperparameter (a ratio, say, from which alpha follows). The function may run many times and in a
    process of its own, so it should only suggest.

    The file is loaded when first needed, so a space travels between processes as its path and name.
    """

    path: Path
    function: str

    @property
    def name(self) -> str:
        """The file's name and the function's, as the space is shown."""
        return f"{self.path.name}:{self.function}"

    @property
    def about(self) -> str:
        """First line of the function's docstring, or nothing."""
        return (inspect.getdoc(self._loaded) or "").partition("\n")[0]

    @property
    def start(self) -> dict[str, Any]:
        """Empty: where the start should be is for the function's sampler alone."""
        return {}

    def start_point(self) -> dict[str, Any]:
        """Empty, as `start`."""
        return {}

    @property
    def constants(self) -> dict[str, Any]:
        """Empty: what is constant only the function knows."""
        return {}

    @property
    def searched(self) -> tuple[str, ...]:
        """Names that the function suggested, on any of its branches, in trial runs."""
        return tuple(self._suggested)

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """All values of one trial: those suggested (helpers too) and those the function returned.

        Raises `SettingsError` when the function fails or its values are not allowed.
        """
        function = self._loaded
        try:
            returned = function(trial)
        except Exception as error:
            raise self._failure("failed", error) from error
        if returned is not None and not isinstance(returned, Mapping):
            raise SettingsError(
                f"{self.path}: {self.function} must return a dict or nothing, not {returned!r}"
            )
        values = {**trial.params, **(returned or {})}
        self.hyperparameters(values)
        return values

    def hyperparameters(self, values: Mapping[str, Any]) -> Hyperparameters:
        """`values` of a trial, without helpers, validated; what they leave out keeps its default.

        Raises `SettingsError` for a name or a value that is not allowed.
        """
        try:
            return make_hyperparameters(
                {name: value for name, value in values.items() if not str(name).startswith("_")}
            )
        except SettingsError as error:
            raise SettingsError(f"{self.path}: {self.function}: {error}") from None

    def describe(self) -> list[tuple[str, str]]:
        """Rows (name, values) for display, from trial runs; branches that differ are joined by "or"."""
        return [(name, " or ".join(texts)) for name, texts in self._suggested.items()]

    def check(self) -> None:
        """Run the function some times. Raises `SettingsError` when it fails or searches nothing."""
        if not self._suggested:
            raise SettingsError(
                f"{self.path}: {self.function} suggests nothing, so there is nothing to search"
            )

    def __str__(self) -> str:
        return "\n".join(f"{name}: {text}" for name, text in self.describe())

    def __getstate__(self) -> dict[str, Any]:
        # What is cached beside the fields came from the user's file and cannot be pickled.
        return {"path": self.path, "function": self.function}

    @cached_property
    def _suggested(self) -> dict[str, list[str]]:
        """What trial runs suggested: name → its domain in words, one for each branch that differs."""
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        finally:
            optuna.logging.set_verbosity(verbosity)
        found: dict[str, list[str]] = {}
        for _ in range(PROBES):
            trial = study.ask()
            self.suggest(trial)
            for name, distribution in trial.distributions.items():
                text = from_distribution(distribution)
                if text not in found.setdefault(name, []):
                    found[name].append(text)
        return found

    @cached_property
    def _loaded(self) -> Callable[[optuna.Trial], object]:
        if not self.path.is_file():
            raise SettingsError(f"{self.path}: no such file")
        spec = importlib.util.spec_from_file_location(f"search_space_of_{self.path.stem}", self.path)
        if spec is None or spec.loader is None:
            raise SettingsError(f"{self.path}: not a Python file; its name must end with .py")
        module = importlib.util.module_from_spec(spec)
        # Dataclasses look their module up there.
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise self._failure("cannot be loaded", error) from error
        function = getattr(module, self.function, None)
        if not callable(function):
            names = [n for n, f in vars(module).items() if inspect.isfunction(f) and not n.startswith("_")]
            raise SettingsError(
                f"{self.path}: no function {self.function!r}; it has {', '.join(names) or 'none'}"
            )
        loaded: Callable[[optuna.Trial], object] = function
        return loaded

    def _failure(self, what: str, error: Exception) -> SettingsError:
        """The user's own exception in one line, with the last line of their file that it passed."""
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(self.path)
        ]
        last = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
        line = f" line {last}" if last else ""
        problem = " ".join(str(error).split())
        return SettingsError(f"{self.path}{line}: {self.function} {what}: {type(error).__name__}: {problem}")
