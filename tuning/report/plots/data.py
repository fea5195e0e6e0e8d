"""What plots are drawn from: a sweep's trials, also as an Optuna study in memory.

Plotly reads a little HTML in any text. Names and choices here have passed through `plain` (numbers need not), so
that it shows them as they are; so must every other text of a user's.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from lorasweep.search_spaces.domains import from_distribution, show
from lorasweep.search_spaces.fields import adapter_settings
from lorasweep.training.settings import Hyperparameters, Metric, higher_is_better
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.record.words import SHORT_NAMES, one_line
from lorasweep.tuning.search.evidence import setting_importances

# Full fine-tuning does not use these, whatever was drawn for them.
ADAPTER_SETTINGS = adapter_settings()
# Numbers without a distribution are taken for log-uniform when the largest is this many times the smallest.
LOG_SPREAD = 30


@dataclass(frozen=True)
class PlotData:
    """A sweep as its plots show it.

    Attributes:
        trials: all of them, by number.
        metric: of their scores.
        winner: its id, once there is one.
        kinds: shown name of a searched setting → distribution, with its choices as shown: as numbers where all
            are numbers, else as texts. The branches of a define-by-run space are joined.
        values: trial → shown name → value. A trial lacks settings that it did not draw or does not use.
        domains: setting → its domain in words, both as in the space.
        confusion: the winner's, on the test split; int, shape (classes, classes), rows by true class.
        label_names: of these classes.
        label_rows: texts that have each of them, where a text may have several; int, shape (classes,). The confusion
            then holds the texts that have a label and get a label.
    """

    trials: Sequence[TrialRecord]
    metric: Metric
    winner: str | None
    kinds: Mapping[str, BaseDistribution]
    values: Mapping[str, Mapping[str, Any]]
    domains: list[tuple[str, str]]
    confusion: np.ndarray | None = None
    label_names: Sequence[str] = ()
    label_rows: np.ndarray | None = None

    @cached_property
    def scored(self) -> list[TrialRecord]:
        """Trials with a finite score."""
        return [trial for trial in self.trials if is_number(trial.score)]

    @cached_property
    def scores(self) -> list[float]:
        """The scores of `scored`."""
        return [trial.score for trial in self.scored if trial.score is not None]

    @cached_property
    def drawn(self) -> list[str]:
        """Settings that a trial with a score has a value of, in the space's order."""
        return [name for name in self.kinds if any(name in self.values[trial.id] for trial in self.scored)]

    @cached_property
    def study(self) -> optuna.Study:
        """For `optuna.visualization`; its trial n is `trials[n]`.

        Every trial with a score is COMPLETE: Optuna's plots leave out the trials that ASHA stopped, and with
        them most of what is known of bad settings.
        """
        with quiet_optuna():
            study = optuna.create_study(direction="maximize" if higher_is_better(self.metric) else "minimize")
            for trial in self.trials:
                values = dict(self.values[trial.id])
                score = trial.score if is_number(trial.score) else None
                state = TrialState.FAIL if score is None else TrialState.COMPLETE
                kinds = {name: self.kinds[name] for name in values}
                study.add_trial(create_trial(state=state, value=score, params=values, distributions=kinds))
        return study

    @cached_property
    def importances(self) -> dict[str, float]:
        """Setting → share of what sets the best trials apart; see `setting_importances`."""
        if not self.drawn:
            return {}
        with quiet_optuna():
            return setting_importances(self.study)


def plot_data(
    trials: Sequence[TrialRecord],
    metric: Metric,
    winner: str | None = None,
    drawn: Mapping[int, FrozenTrial] | None = None,
    kinds: Mapping[str, BaseDistribution] | None = None,
) -> PlotData:
    """Collect what the trials drew, under names and choices that Plotly may show.

    Args:
        drawn: trial number → the trial in the sweep's own study. Only there are the values of a function's
            helpers; without it the records' hyperparameters are taken.
        kinds: the space's distributions. A setting that has none anywhere is judged by its values.
    """
    distributions = {name: [kind] for name, kind in (kinds or {}).items()}
    seen: dict[str, list[Any]] = {}
    values: dict[str, dict[str, Any]] = {}
    for trial in trials:
        names = [name for name in trial.searched if name in Hyperparameters.model_fields]
        own = {name: getattr(trial.hyperparameters, name) for name in names}
        frozen = (drawn or {}).get(trial.number)
        if frozen is not None and frozen.params:
            own = frozen.params
            for name, kind in frozen.distributions.items():
                distributions.setdefault(name, []).append(kind)
        unused = ADAPTER_SETTINGS if trial.hyperparameters.method == "full" else ()
        values[trial.id] = {name: value for name, value in own.items() if name not in unused}
        for name, value in values[trial.id].items():
            seen.setdefault(name, []).append(value)
    joined = {name: _joined(distributions.get(name) or _guessed(seen[name])) for name in distributions | seen}
    joined = {name: kind for name, kind in joined.items() if kind is not None}
    labels = dict(zip(joined, distinct([setting_name(name) for name in joined]), strict=True))
    shown = {name: _shown(kind) for name, kind in joined.items()}
    fitting = {
        trial: {
            labels[name]: _shown_value(value, joined[name], shown[name])
            for name, value in own.items()
            if name in joined and _fits(value, joined[name])
        }
        for trial, own in values.items()
    }
    domains = [(name, from_distribution(kind)) for name, kind in joined.items()]
    kinds = {labels[name]: kind for name, kind in shown.items()}
    return PlotData(trials, metric, winner, kinds, fitting, domains)


def _joined(kinds: Sequence[BaseDistribution]) -> BaseDistribution | None:
    """The branches of a function together; in a study only the ends of a range differ between them."""
    if not kinds or isinstance(kinds[0], CategoricalDistribution) or all(kind == kinds[0] for kind in kinds):
        return next(iter(kinds), None)
    ranges = [kind for kind in kinds if not isinstance(kind, CategoricalDistribution)]
    low, high = min(kind.low for kind in ranges), max(kind.high for kind in ranges)
    return FloatDistribution(low, high, log=low > 0 and any(kind.log for kind in ranges))


def _guessed(seen: Sequence[Any]) -> list[BaseDistribution]:
    values = list(dict.fromkeys(seen))
    if len(values) < 2:
        return []
    if all(is_number(value) for value in values):
        low, high = min(values), max(values)
        return [FloatDistribution(low, high, log=low > 0 and high / low >= LOG_SPREAD)]
    return [CategoricalDistribution(tuple(values))]


def _fits(value: Any, kind: BaseDistribution) -> bool:
    if isinstance(kind, CategoricalDistribution):
        return value in kind.choices
    return is_number(value) and kind.low <= value <= kind.high


def _shown(kind: BaseDistribution) -> BaseDistribution:
    """Numbers as they are, everything else as a text that Plotly may show."""
    if not isinstance(kind, CategoricalDistribution) or all(is_number(choice) for choice in kind.choices):
        return kind
    return CategoricalDistribution(distinct([plain(show(choice), 20) for choice in kind.choices]))


def _shown_value(value: Any, kind: BaseDistribution, shown: BaseDistribution) -> Any:
    """By place: a record holds 32.0 where the space says 32."""
    return shown.choices[kind.choices.index(value)] if isinstance(kind, CategoricalDistribution) else value


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Let Optuna log errors alone."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def short(text: str, length: int) -> str:
    """A text on one line without control characters, its middle left out where it is too long."""
    line = one_line(text)
    if len(line) <= length:
        return line
    tail = (length - 1) // 2
    return f"{line[: length - 1 - tail]}…{line[len(line) - tail :]}"


def plain(text: str, length: int = 60) -> str:
    """A text that Plotly shows as it is: on one line, cut in the middle, its markup escaped."""
    return html.escape(short(text, length), quote=False)


def setting_name(name: str) -> str:
    """A setting as plots name it, for instance "lr ratio" for `_lr_ratio`."""
    return plain(SHORT_NAMES.get(name, name).lstrip("_").replace("_", " "), 18)


def distinct(texts: Sequence[str]) -> list[str]:
    """The texts with blanks added to those that repeat an earlier one: Plotly and Optuna tell them apart by text."""
    return [text + " " * list(texts[:number]).count(text) for number, text in enumerate(texts)]
