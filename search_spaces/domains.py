"""Domains: the values that one searched hyperparameter may take, as YAML, as Optuna and as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from lorasweep.search_spaces.fields import allowed, check_value, nearest, takes_fractions
from lorasweep.training.errors import SettingsError

Value = str | int | float | None
"""A single setting. Never a list: Optuna's storages cannot hold one as a choice."""

KINDS = ("choice", "uniform", "loguniform", "int")


def show(value: object) -> str:
    """A setting as a person would write it: `2e-3`, `0.05`, `16`, `all-linear`, `null`."""
    if value is None:
        return "null"
    if isinstance(value, float) and value and math.isfinite(value) and abs(value) < 0.01:
        mantissa, exponent = f"{value:.6e}".split("e")
        return f"{float(mantissa):.4g}e{int(exponent)}"
    return f"{value:g}" if isinstance(value, float) else str(value)


class Domain:
    """The values that one searched hyperparameter may take: a `Choice`, a `Range` or an `IntRange`."""

    def distribution(self) -> CategoricalDistribution | FloatDistribution | IntDistribution:
        """The domain as Optuna knows it."""
        raise NotImplementedError

    def written(self) -> dict[str, Any]:
        """The domain as it stands in YAML."""
        raise NotImplementedError

    def check(self, name: str) -> None:
        """Raise `SettingsError` unless the hyperparameter `name` takes every value of the domain."""
        kind = self.distribution()
        for value in kind.choices if isinstance(kind, CategoricalDistribution) else (kind.low, kind.high):
            check_value(name, value)

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        """A value of the domain, proposed by the trial's sampler."""
        kind = self.distribution()
        value: Value
        if isinstance(kind, CategoricalDistribution):
            value = trial.suggest_categorical(name, kind.choices)
        elif isinstance(kind, FloatDistribution):
            value = trial.suggest_float(name, kind.low, kind.high, log=kind.log)
        else:
            value = trial.suggest_int(name, kind.low, kind.high, log=kind.log, step=kind.step)
        return value

    def __contains__(self, value: object) -> bool:
        raise NotImplementedError

    def __str__(self) -> str:
        return from_distribution(self.distribution())


@dataclass(frozen=True)
class Choice(Domain):
    """One of at least two single values, without an order.

    Example:
        >>> Choice((4, 8, 16)).values
        (4, 8, 16)
    """

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        for position, value in enumerate(self.values):
            if not isinstance(value, str | int | float | None):
                raise SettingsError(
                    f"a choice must be a single value, not {value!r}; write one value or name for each choice"
                )
            if value in self.values[:position]:
                raise SettingsError(f"{show(value)} stands twice in the choice; name each value once")
        if len(self.values) < 2:
            raise SettingsError(
                f"choice needs at least two values, not {list(self.values)!r}; write a constant as it is"
            )

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def written(self) -> dict[str, Any]:
        return {"choice": list(self.values)}

    def distribution(self) -> CategoricalDistribution:
        return CategoricalDistribution(self.values)


@dataclass(frozen=True)
class Range(Domain):
    """Fractions from `low` to `high`, both included; with `log`, 1 to 10 is as likely as 10 to 100.

    Example:
        >>> Range(1e-4, 1e-2, log=True)
        Range(low=0.0001, high=0.01, log=True)
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_ends(self.kind, self.low, self.high)
        if self.log and self.low <= 0:
            raise SettingsError(f"loguniform must begin above 0, not at {show(self.low)}")

    @property
    def kind(self) -> str:
        return "loguniform" if self.log else "uniform"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def check(self, name: str) -> None:
        if not takes_fractions(name):
            raise SettingsError(
                f"{name}: {self.kind} draws fractions, but it takes {allowed(name)}; use int or choice"
            )
        super().check(name)

    def written(self) -> dict[str, Any]:
        return {self.kind: [self.low, self.high]}

    def distribution(self) -> FloatDistribution:
        return FloatDistribution(self.low, self.high, log=self.log)


@dataclass(frozen=True)
class IntRange(Domain):
    """Whole numbers from `low` to `high`, both included, every `step`; `log` as in `Range`.

    Example:
        >>> IntRange(4, 64, step=4)
        IntRange(low=4, high=64, log=False, step=4)
    """

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        _check_ends("int", self.low, self.high)
        for value in (self.low, self.high, self.step):
            if not isinstance(value, int) or isinstance(value, bool):
                raise SettingsError(f"int takes whole numbers, not {value!r}; use uniform for fractions")
        if not isinstance(self.log, bool):
            raise SettingsError(f"log is true or false, not {self.log!r}")
        if self.step < 1:
            raise SettingsError(f"step must be at least 1, not {self.step}")
        if self.log and self.step != 1:
            raise SettingsError("int takes log or step, not both; use choice for the values you want")
        if self.log and self.low < 1:
            raise SettingsError(f"int with log must begin at 1 or above, not at {self.low}")
        # Optuna would lower the end with no more than a warning.
        reached = self.high - (self.high - self.low) % self.step
        if reached != self.high:
            raise SettingsError(
                f"steps of {self.step} from {self.low} do not reach {self.high}; end at {reached} or "
                f"{reached + self.step}"
            )

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and value in range(self.low, self.high + 1, self.step)

    def written(self) -> dict[str, Any]:
        step = {"step": self.step} if self.step > 1 else {}
        return {"int": [self.low, self.high]} | ({"log": True} if self.log else step)

    def distribution(self) -> IntDistribution:
        return IntDistribution(self.low, self.high, log=self.log, step=self.step)


def _check_ends(kind: str, low: object, high: object) -> None:
    for value in (low, high):
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise SettingsError(f"{kind} takes two numbers, [low, high], not {value!r}")
    if not low < high:  # type: ignore[operator]
        raise SettingsError(f"the range {show(low)} ... {show(high)} is empty; write {kind}: [low, high]")


def parse(written: object) -> Domain | Value:
    """A domain from `{kind: ...}` as it stands in YAML; a single value stays the constant that it is.

    Raises `SettingsError`, without the hyperparameter's name, for anything else.
    """
    if isinstance(written, list | tuple):
        raise SettingsError(
            f"{list(written)!r} is a list; write {{choice: {list(written)!r}}} to search over it"
        )
    if not isinstance(written, Mapping):
        if not isinstance(written, str | int | float | None):
            raise SettingsError(f"{written!r} is not a setting; write one value or {{KIND: ...}}")
        return written
    kinds = [kind for kind in KINDS if kind in written]
    if len(kinds) != 1:
        given = ", ".join(map(str, written)) or "nothing"
        hint = nearest(str(next(iter(written), "")), KINDS)
        raise SettingsError(f"{given} is not a domain{hint}; name one of {', '.join(KINDS)}")
    kind = kinds[0]
    options = {key: value for key, value in written.items() if key != kind}
    allowed_options = ("log", "step") if kind == "int" else ()
    for option in options:
        if option not in allowed_options:
            takes = f"only {' and '.join(allowed_options)}" if allowed_options else "no options"
            instead = "; use loguniform" if option == "log" else ""
            raise SettingsError(f"{option} does not go with {kind}, which takes {takes}{instead}")
    values = written[kind]
    if not isinstance(values, list | tuple):
        raise SettingsError(f"{kind} takes a list in brackets, not {values!r}")
    if kind == "choice":
        return Choice(tuple(values))
    if len(values) != 2:
        raise SettingsError(f"{kind} takes two numbers, [low, high], not {list(values)!r}")
    low, high = values
    return IntRange(low, high, **options) if kind == "int" else Range(low, high, log=kind == "loguniform")


def from_distribution(distribution: BaseDistribution) -> str:
    """Optuna's distribution in the words in which the domains are shown."""
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(show(value) for value in distribution.choices)
    if isinstance(distribution, IntDistribution | FloatDistribution):
        step = f" (step {show(distribution.step)})" if distribution.step not in (None, 1) else ""
        log = " (log)" if distribution.log else step
        return f"{show(distribution.low)} ... {show(distribution.high)}{log}"
    return str(distribution)
