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
from types import ModuleType
from typing import Any, ClassVar

import optuna
from optuna.distributions import CategoricalDistribution

from lorasweep.search_spaces.domains import from_distribution
from lorasweep.search_spaces.fields import make_hyperparameters
from lorasweep.search_spaces.function_source import function_source
from lorasweep.search_spaces.starts import BASE_MODEL
from lorasweep.training.errors import SettingsError
from lorasweep.training.settings import Hyperparameters

PROBES = 32
"""Calls of a function before a sweep: enough to reach the branches of a usual condition."""


@dataclass(frozen=True)
class FunctionSpace:
    """`function(trial)` of the Python file at `path`, or of a file's `text`.

    The function suggests hyperparameters by name, and may return a dict of those that it works out itself. A
    suggested name that begins with an underscore is a helper: it is searched, but is no hyperparameter (a
    ratio, say, from which alpha follows). The function runs many times and perhaps in another process, so it
    should only suggest.

    The code is loaded when first needed: a space travels between processes as path, name and text.
    """

    path: Path
    function: str
    text: str | None = None

    # Where to start and what is constant only the function knows.
    starts: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    constants: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def from_function(cls, function: Callable[..., Any]) -> FunctionSpace:
        """A space from a function of a program or a notebook, which is kept as its source.

        The source takes with it what the function uses of its module: imports, plain constants, and other
        functions of the same file. What runs is this source from the first trial on, so that a resumed sweep
        searches the same space.

        Raises:
            SettingsError: a lambda, a closure, a method, or a function whose source cannot be read.
        """
        text = function_source(function)
        return cls(Path("function"), inspect.unwrap(function).__name__, text)

    @property
    def name(self) -> str:
        """The file's name and the function's; `function:NAME` for a function that came without a file."""
        return f"{self.path.name}:{self.function}"

    @cached_property
    def source(self) -> str:
        """The Python code in which the function is defined.

        Raises `SettingsError` when there is no such file, or none that Python can read.
        """
        if self.text is not None:
            return self.text
        if not self.path.is_file():
            raise SettingsError(f"{self.path}: no such file")
        if self.path.suffix != ".py":
            raise SettingsError(f"{self.path}: not a Python file; its name must end with .py")
        try:
            return importlib.util.decode_source(self.path.read_bytes())
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
            raise SettingsError(f"{self.path}: cannot be read ({error}); write it as UTF-8 text") from None

    @property
    def about(self) -> str:
        """First line of the function's docstring, or nothing."""
        return (inspect.getdoc(self._loaded) or "").partition("\n")[0]

    def start_points(self) -> list[dict[str, Any]]:
        """Empty, as `starts`."""
        return []

    @property
    def searched(self) -> tuple[str, ...]:
        """Names that the function suggests on any of its branches, as far as test calls show."""
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
                f"{self._place}: {self.function} must return a dict or nothing, not {returned!r}"
            )
        values = {**trial.params, **(returned or {})}
        self.hyperparameters(values)
        return values

    def hyperparameters(self, values: Mapping[str, Any]) -> Hyperparameters:
        """A trial's `values` without helpers, validated; the rest keeps its defaults.

        Raises `SettingsError` for a name or a value that is not allowed.
        """
        try:
            return make_hyperparameters(
                {name: value for name, value in values.items() if not str(name).startswith("_")}
            )
        except SettingsError as error:
            raise SettingsError(f"{self._place}: {self.function}: {error}") from None

    def describe(self) -> list[tuple[str, str]]:
        """Rows (name, values) for display, from test calls; branches that differ are joined by "or"."""
        return [(name, " or ".join(texts)) for name, texts in self._suggested.items()]

    def check(self) -> None:
        """Call the function some times. Raises `SettingsError` when it fails or searches nothing."""
        if not self._suggested:
            raise SettingsError(
                f"{self._place}: {self.function} suggests nothing, so there is nothing to search"
            )

    def __str__(self) -> str:
        return "\n".join(f"{name}: {text}" for name, text in self.describe())

    @property
    def _place(self) -> str:
        return "space" if self.text is not None else str(self.path)

    def __getstate__(self) -> dict[str, Any]:
        # Cached values come from the user's file and cannot be pickled.
        return {"path": self.path, "function": self.function, "text": self.text}

    @cached_property
    def _suggested(self) -> dict[str, list[str]]:
        """What test calls suggested: name → its domain in words, one for each branch that differs."""
        study = _random_study()
        drawn: dict[str, list[str]] = {}
        for _ in range(PROBES):
            trial = study.ask()
            self.suggest(trial)
            for name, distribution in trial.distributions.items():
                text = from_distribution(distribution)
                if text not in drawn.setdefault(name, []):
                    drawn[name].append(text)
        return drawn

    @cached_property
    def base_models(self) -> tuple[str | None, ...]:
        """Base models that the function may choose, as far as test calls show; empty where it names none."""
        study, found = _random_study(), dict[str | None, None]()
        for _ in range(PROBES):
            trial = study.ask()
            values = self.suggest(trial)
            distribution = trial.distributions.get(BASE_MODEL)
            if isinstance(distribution, CategoricalDistribution):
                found |= dict.fromkeys(distribution.choices)
            elif BASE_MODEL in values:
                found[values[BASE_MODEL]] = None
        return tuple(found)

    @cached_property
    def _loaded(self) -> Callable[[optuna.Trial], object]:
        source = self.source
        module = ModuleType(f"search_space_of_{self.path.stem}")
        module.__file__ = str(self.path)
        # Dataclasses look their module up there.
        sys.modules[module.__name__] = module
        try:
            exec(compile(source, str(self.path), "exec"), vars(module))
        except Exception as error:
            raise self._failure("cannot be loaded", error) from error
        function = getattr(module, self.function, None)
        if not callable(function):
            names = [n for n, f in vars(module).items() if inspect.isfunction(f) and not n.startswith("_")]
            raise SettingsError(
                f"{self._place}: no function {self.function!r}; it has {', '.join(names) or 'none'}"
            )
        loaded: Callable[[optuna.Trial], object] = function
        return loaded

    def _failure(self, what: str, error: Exception) -> SettingsError:
        """The user's own exception in one line, with the last line of their code that it passed."""
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(self.path)
        ]
        last = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
        problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if self.text is not None:
            # Nobody has seen the text that was made of their function: its line numbers would mislead.
            at = f" at `{self.text.splitlines()[last - 1].strip()}`" if last else ""
            return SettingsError(f"{self._place}: {self.function} {what}{at}: {problem}")
        line = f" line {last}" if last else ""
        return SettingsError(f"{self.path}{line}: {self.function} {what}: {problem}")


def _random_study() -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    finally:
        optuna.logging.set_verbosity(verbosity)
