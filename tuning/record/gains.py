"""What the search added to its known-good start and to the untuned settings, in words."""

from __future__ import annotations

from lorasweep.training.metrics import Metric, higher_is_better, metric_words, unit_of
from lorasweep.tuning.record.results import Gain, SweepResult

NOTHING = "The search found nothing better than its start"


def start_text(result: SweepResult) -> str | None:
    """What the search added to its known-good start, as a sentence; None where there is none to compare with."""
    if result.start is None or result.winner is None:
        return None
    if result.start.id == result.winner.id:
        return f"{NOTHING}, {result.start.id}."
    if result.over_start is None:
        return None
    if improves(result.over_start, result.metric):
        start = f"its known-good start {result.start.id}"
        return f"The search {_improvement(result.over_start, result.metric, start)}"
    return f"{NOTHING}, {result.start.id}: {_difference(result.over_start, result.metric)}"


def untuned_text(result: SweepResult) -> str | None:
    """What the winner adds to the untuned settings, as a sentence; None where they were not trained."""
    gain, metric = untuned_gain(result), result.metric
    if gain is None:
        return None
    if improves(gain, metric):
        return f"Tuning {_improvement(gain, metric, 'the untuned default')}"
    return f"Tuning found nothing better than the untuned default: {_difference(gain, metric)}"


def gain_texts(result: SweepResult) -> list[str]:
    """Both sentences, as far as there is something to tell: the start first."""
    return [text for text in (start_text(result), untuned_text(result)) if text]


def untuned_gain(result: SweepResult) -> Gain | None:
    """What the winner adds to the untuned settings; of results from before it was recorded, without its interval."""
    if result.over_untuned is not None or result.untuned is None or result.winner is None:
        return result.over_untuned
    metric = result.metric
    return Gain(difference=result.winner.test.by(metric) - result.untuned.test.by(metric))


def within_noise(gain: Gain) -> bool:
    """Whether the interval includes no difference at all."""
    return gain.interval is not None and gain.interval[0] <= 0 <= gain.interval[1]


def improves(gain: Gain, metric: Metric) -> bool:
    """Whether the winner scores better, by however little."""
    return gain.difference > 0 if higher_is_better(metric) else gain.difference < 0


def _improvement(gain: Gain, metric: Metric, other: str) -> str:
    """The end of a sentence: adds +1.2 points of accuracy to OTHER (95 % interval -0.1 to +2.5): within noise."""
    words = metric_words(metric)
    if not higher_is_better(metric):
        ends = gain.interval and (f"{-gain.interval[1]:.4f}", f"{-gain.interval[0]:.4f}")
        return f"lowers the {words} of {other} by {-gain.difference:.4f}{_nats(metric)}{_likely(gain, ends)}"
    if unit_of(metric) == "share":
        return f"adds {_points(gain.difference)} points of {words} to {other}{_likely(gain, _ends(gain))}"
    return f"adds {gain.difference:+.4f} of {words} to {other}{_likely(gain, _digits(gain))}"


def _difference(gain: Gain, metric: Metric) -> str:
    """The same where the winner is no better: -0.4 points of accuracy on the test split (95 % interval ...)."""
    if unit_of(metric) != "share":
        amount = f"{gain.difference:+.4f}{_nats(metric)} of {metric_words(metric)}"
        return f"{amount} on the test split{_likely(gain, _digits(gain))}"
    amount = f"{_points(gain.difference)} points of {metric_words(metric)}"
    return f"{amount} on the test split{_likely(gain, _ends(gain))}"


def _likely(gain: Gain, ends: tuple[str, str] | None) -> str:
    """The interval, whether it is noise, and the full stop."""
    if ends is None:
        return "."
    return f" (95 % interval {' to '.join(ends)}){': within noise' if within_noise(gain) else ''}."


def _ends(gain: Gain) -> tuple[str, str] | None:
    return gain.interval and (_points(gain.interval[0]), _points(gain.interval[1]))


def _digits(gain: Gain) -> tuple[str, str] | None:
    return gain.interval and (f"{gain.interval[0]:+.4f}", f"{gain.interval[1]:+.4f}")


def _nats(metric: Metric) -> str:
    return " nats" if unit_of(metric) == "nats" else ""


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
