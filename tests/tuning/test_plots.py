"""Figures of a sweep: what they show is read back from the drawn objects, without training anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import optuna
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from tuning import plots
from tuning.record import TrialRecord
from tuning.study import WARM

KINDS: dict[str, BaseDistribution] = {
    "rank": CategoricalDistribution((4, 8, 16, 32)),
    "alpha": CategoricalDistribution((8, 16, 32)),
    "base_dropout": CategoricalDistribution((None, 0.0, 0.1)),
    "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    "dropout": FloatDistribution(0.0, 0.3),
    "batch_size": IntDistribution(8, 64),
}


def trial(
    number: int, scores: Sequence[float | None], state: str = "completed", **settings: Any
) -> TrialRecord:
    """A record with one evaluation for each score; its own score is the last one."""
    drawn = {
        "rank": (4, 8, 16, 32)[number % 4],
        "alpha": float((8, 16, 32)[number % 3]),
        "base_dropout": (None, 0.0, 0.1)[number % 3],
        "learning_rate": 1e-4 * 10 ** (number % 9 / 4),
        "dropout": 0.02 * (number % 7),
        "batch_size": 8 + number % 5,
    } | settings
    return TrialRecord(
        id=f"t{number:03d}",
        number=number,
        state=state,  # type: ignore[arg-type]
        settings={"method": "lora", **drawn},
        searched=tuple(KINDS),
        evaluations=tuple(
            {"rung": rung, "epoch": rung / 2, "accuracy": score, "score": score}
            for rung, score in enumerate(scores, 1)
        ),
        score=scores[-1] if scores else None,
        trainable_parameters=1000 * (1 + number),
    )


TRIALS = [
    trial(0, [0.3, 0.5, 0.6]),
    trial(1, [0.2], "stopped"),
    trial(2, [], "failed"),
    trial(3, [0.4, 0.7, 0.9]),
    trial(4, [0.35, 0.33], "running"),
    trial(5, [0.1, math.nan], "failed"),
]


def only(figure: Figure | None) -> Axes:
    """The first axes of a figure that must be there."""
    assert figure is not None
    return figure.axes[0]


def texts(figure: Figure) -> list[str]:
    """All texts of a figure's legend."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_learning_curves_show_every_evaluation_and_how_trials_ended() -> None:
    """Finite ones only, over epochs; the winner is thick and lies on top, a stopped trial ends in a cross."""
    axes = only(plots.learning_curves(TRIALS, "accuracy", "t003"))
    curves = [line for line in axes.lines if line.get_marker() == "None"]
    points = {tuple(np.asarray(line.get_ydata()).tolist()): line for line in curves}
    assert set(points) == {(0.3, 0.5, 0.6), (0.2,), (0.4, 0.7, 0.9), (0.35, 0.33), (0.1,)}
    won = points[0.4, 0.7, 0.9]
    assert won.get_color() == plots.WINNER
    assert won.get_linewidth() > 2 * points[0.3, 0.5, 0.6].get_linewidth()
    assert won.get_zorder() > max(line.get_zorder() for line in curves if line is not won)
    assert np.asarray(won.get_xdata()).tolist() == [0.5, 1.0, 1.5]
    ends = {float(np.asarray(e.get_ydata())[0]): e.get_marker() for e in axes.lines if e not in curves}
    assert ends == {0.6: "o", 0.2: "x", 0.9: "o", 0.33: ">", 0.1: "X"}
    figure = plots.learning_curves(TRIALS, "accuracy", "t003")
    assert figure is not None
    assert texts(figure) == ["winner t003", "completed", "stopped early", "failed", "running"]


@pytest.mark.parametrize(
    ("metric", "best"), [("accuracy", [0.6, 0.6, 0.9, 0.9]), ("loss", [0.6, 0.2, 0.2, 0.2])]
)
def test_the_history_goes_with_the_metric(metric: Any, best: list[float]) -> None:
    """Best so far: highest accuracy, lowest loss; a failed trial stands at the bottom, not at a score."""
    axes = only(plots.history(TRIALS[::-1], metric, "t003"))
    step = next(line for line in axes.lines if line.get_drawstyle() == "steps-post")
    assert np.asarray(step.get_xdata()).tolist() == [0, 1, 3, 4]
    assert np.asarray(step.get_ydata()).tolist() == best
    failed = [line for line in axes.lines if line.get_marker() == "X"]
    assert sorted(float(np.asarray(line.get_xdata()).item()) for line in failed) == [2, 5]
    assert all(line.get_transform() != axes.transData for line in failed)
    stars = [line for line in axes.lines if line.get_marker() == "*"]
    assert [np.asarray(star.get_xdata()).item() for star in stars] == [3]


def test_a_loss_that_ran_away_does_not_press_the_others_flat() -> None:
    """The axis ends above the useful ones, and says so; an accuracy is never cut."""
    losses = [0.5, 0.6, 0.7, 0.8, 4e5]
    trials = [trial(number, [loss]) for number, loss in enumerate(losses)]
    axes = only(plots.history(trials, "loss"))
    low, high = axes.get_ylim()
    assert low < 0.5
    assert 0.8 < high < 5
    assert any("higher" in text.get_text() for text in axes.texts)
    calm = only(plots.history(trials[:4], "loss"))
    assert calm.get_ylim()[1] >= 0.8
    assert not calm.texts


def study_of(trials: Sequence[TrialRecord], warm: int = 0, **more: BaseDistribution) -> optuna.Study:
    """A study in which the records' trials stand, after `warm` of another sweep."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(WARM, warm)
    kinds = KINDS | more
    for number in range(-warm, len(trials)):
        settings = trials[number].settings if number >= 0 else trials[0].settings | {"rank": 32}
        values = {name: settings.get(name, 2) for name in kinds} | {"alpha": int(settings["alpha"])}
        done = number >= 0 and trials[number].state == "completed"
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if done else TrialState.PRUNED,
                value=trials[number].score if done else None,
                params=values,
                distributions=kinds,
            )
        )
    return study


def test_what_was_searched_is_read_from_the_study() -> None:
    """Own trials behind those of a warm start; helpers of a function too; nothing that `full` has no use for."""
    trials = [*TRIALS[:3], trial(3, [0.4], method="full")]
    helper = CategoricalDistribution((1, 2))
    searched = plots.searched_of(trials, study_of(trials, warm=2, _ratio=helper))
    assert searched.distributions == KINDS | {"_ratio": helper}
    assert [searched.values[f"t00{number}"]["rank"] for number in range(3)] == [4, 8, 16]
    assert searched.values["t000"]["_ratio"] == 2
    assert set(searched.values["t003"]) == {"base_dropout", "learning_rate", "batch_size", "_ratio"}


def test_without_a_study_the_records_tell() -> None:
    """With the space's distributions a value is its own choice; without them the values must tell."""
    known = plots.searched_of(TRIALS, known=KINDS)
    assert known.distributions == KINDS
    assert known.values["t000"]["alpha"] == 8
    assert isinstance(known.values["t000"]["alpha"], int), "a record holds 8.0, the space says 8"
    assert known.values["t000"]["base_dropout"] is None
    odd = plots.searched_of([trial(0, [0.5], rank=5, learning_rate=9.0, dropout="a")], known=KINDS)
    assert set(odd.values["t000"]) == {"alpha", "base_dropout", "batch_size"}, "outside the space"
    guessed = plots.searched_of([trial(number, [0.5]) for number in range(9)]).distributions
    assert guessed["learning_rate"] == FloatDistribution(1e-4, 1e-2, log=True)
    assert guessed["batch_size"] == FloatDistribution(8, 12)
    assert guessed["base_dropout"] == CategoricalDistribution((None, 0.0, 0.1))


def test_branches_of_a_space_are_joined() -> None:
    """A function may draw one name from several ranges."""
    study = optuna.create_study()
    kinds = [FloatDistribution(1e-3, 1e-2, log=True), FloatDistribution(1e-5, 1e-4, log=True)]
    for kind, value in zip(kinds, (2e-3, 2e-5), strict=True):
        study.add_trial(create_trial(value=0.5, params={"x": value}, distributions={"x": kind}))
    trials = [trial(0, [0.5]), trial(1, [0.6])]
    searched = plots.searched_of(trials, study)
    assert searched.distributions == {"x": FloatDistribution(1e-5, 1e-2, log=True)}
    assert [searched.values[t.id]["x"] for t in trials] == [2e-3, 2e-5]


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_importances_count_stopped_trials(metric: Any) -> None:
    """Only the rate decides, and only two trials have completed: Optuna alone would know next to nothing."""
    trials = [
        trial(
            number, [0.9 if number % 9 > 6 else 0.2 + 0.01 * number], "completed" if number < 2 else "stopped"
        )
        for number in range(40)
    ]
    if metric == "loss":
        trials = [t.model_copy(update={"score": 1 - (t.score or 0.0)}) for t in trials]
    searched = plots.searched_of(trials, known=KINDS)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    shares = plots.importance_of(searched, trials, metric)
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    assert next(iter(shares)) == "learning_rate"
    assert shares["learning_rate"] > 0.5
    assert sum(shares.values()) == pytest.approx(1)
    assert shares == plots.importance_of(searched, trials, metric)
    axes = only(plots.importances(searched, trials, metric))
    assert axes.get_yticklabels()[-1].get_text() == "rate", "the largest on top"


@pytest.mark.parametrize(("count", "part"), [(4, 1 / 3), (12, 1 / 3), (20, 0.25), (50, 0.1), (90, 0.1)])
def test_the_best_part_grows_with_the_sweep(count: int, part: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the trials, but 5 where there are so many, and never more than a third."""
    parts: list[float] = []
    evaluator = optuna.importance.PedAnovaImportanceEvaluator

    def record(*, target_quantile: float) -> Any:
        parts.append(target_quantile)
        return evaluator(target_quantile=target_quantile)

    monkeypatch.setattr(optuna.importance, "PedAnovaImportanceEvaluator", record)
    trials = [trial(number, [number / 100]) for number in range(count)]
    assert plots.importance_of(plots.searched_of(trials, known=KINDS), trials, "accuracy")
    assert parts == [pytest.approx(part)]


def test_no_importance_is_made_up() -> None:
    """Too few trials, or all alike, or some without the setting."""
    trials = [trial(number, [0.1 * number]) for number in range(5)]
    searched = plots.searched_of(trials, known=KINDS)
    assert plots.importances(searched, trials, "accuracy") is not None
    assert plots.importances(searched, trials[:3], "accuracy") is None
    assert plots.importances(searched, [*trials[:3], trial(9, [math.nan]), TRIALS[2]], "accuracy") is None
    assert plots.importances(searched, [trial(number, [0.5]) for number in range(5)], "accuracy") is None
    mixed = [*trials, *(trial(number, [0.5], method="full") for number in range(5, 9))]
    assert "rank" in plots.importance_of(plots.searched_of(mixed, known=KINDS), mixed, "accuracy")


def test_slices_have_the_spaces_own_axes() -> None:
    """Logarithmic where the space is; a choice `null` is one; full trials are not in the rank's plot."""
    trials = [*TRIALS, trial(7, [0.8], method="full")]
    figure = plots.slices(plots.searched_of(trials, known=KINDS), trials, "accuracy", "t003")
    assert figure is not None
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels) == ["rank", "alpha", "base dropout", "rate", "dropout", "batch"]
    assert panels["rate"].get_xscale() == "log"
    assert panels["dropout"].get_xscale() == panels["batch"].get_xscale() == "linear"
    assert [text.get_text() for text in panels["base dropout"].get_xticklabels()] == ["null", "0", "0.1"]
    counts = {name: len(axes.lines) for name, axes in panels.items()}
    assert counts == {"rank": 4, "alpha": 4, "base dropout": 5, "rate": 5, "dropout": 4, "batch": 5}
    rates = sorted(float(np.asarray(line.get_xdata()).item()) for line in panels["rate"].lines)
    drawn = [t.settings["learning_rate"] for t in trials if t.score is not None and math.isfinite(t.score)]
    assert rates == sorted(drawn)
    ranks = [round(float(np.asarray(line.get_xdata()).item())) for line in panels["rank"].lines]
    assert ranks == [0, 1, 3, 0], "each over its own choice"


@pytest.mark.parametrize(("metric", "best"), [("accuracy", 0.9), ("loss", 0.2)])
def test_in_parallel_coordinates_better_is_up(metric: Any, best: float) -> None:
    """Also for a loss; a line has a gap where a trial has no use for a setting."""
    trials = [*TRIALS, trial(7, [0.5], method="full")]
    axes = only(plots.parallel_coordinates(plots.searched_of(trials, known=KINDS), trials, metric, "t003"))
    lines = {line.get_ydata()[-1]: line for line in axes.lines if len(np.asarray(line.get_ydata())) == 7}  # type: ignore[index]
    assert len(lines) == 5
    span = (0.9 - 0.5) / 0.7 if metric == "loss" else (0.5 - 0.2) / 0.7
    full = next(line for height, line in lines.items() if height == pytest.approx(span))
    assert np.isnan(np.asarray(full.get_ydata())).tolist() == [True, True, False, False, True, False, False]
    assert max(lines) == pytest.approx(1)
    top = next(text for text in axes.texts if text.get_position() == (5.96, 1.0))
    assert top.get_text() == (f"{best:.0%}" if metric == "accuracy" else f"{best}")


def test_a_bubble_is_as_large_as_what_is_trained() -> None:
    """By area; full fine-tuning stands at the right of the largest rank, and a trial without a rank nowhere."""
    trials = [
        trial(0, [0.5], rank=4).model_copy(update={"trainable_parameters": 250_000}),
        trial(1, [0.6], rank=16).model_copy(update={"trainable_parameters": 1_000_000}),
        trial(2, [0.7], method="full").model_copy(update={"trainable_parameters": 4_000_000}),
        trial(3, [0.8], rank=None),
    ]
    figure = plots.adapter_sizes(trials, "accuracy", "t001")
    axes = only(figure)
    drawn = {tuple(np.asarray(dots.get_offsets())[0].tolist()): dots for dots in axes.collections}
    assert set(drawn) == {(2.0, 0.5), (4.0, 0.6), (5.0, 0.7)}
    areas = [float(drawn[place].get_sizes()[0]) for place in ((2.0, 0.5), (4.0, 0.6), (5.0, 0.7))]  # type: ignore[attr-defined]
    assert areas[2] / areas[1] == pytest.approx(4)
    assert areas[1] / areas[0] == pytest.approx(4)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["4", "16", "full"]
    assert figure is not None
    assert texts(figure)[-2:] == ["250.0 K", "4.0 M"]


def test_confusion_is_counted_by_true_class() -> None:
    """Each row in per cent; a class without rows is left grey, not 0; few classes have their figures written."""
    axes = only(plots.confusion(np.array([[3, 1, 0], [0, 0, 0], [2, 0, 998]]), ["a", "b", "c"]))
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shown, [[0.75, 0.25, 0], [np.nan] * 3, [0.002, 0, 0.998]])
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "75", (1, 0): "25", (2, 2): "100"}
    assert axes.get_xlabel() == "predicted"


def test_many_classes_with_long_names_keep_them() -> None:
    """41 names, cut in the middle so that they still differ; no figures in the cells; 200 are only counted."""
    names = [f"a category of news with a name as long as this, number {n}\nof 41" for n in range(41)]
    figure = plots.confusion(np.eye(41, dtype=int), names)
    axes = only(figure)
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert len(set(labels)) == 41
    assert max(map(len, labels)) == 24
    assert not axes.texts
    assert figure is not None
    assert max(figure.get_size_inches()) < 14
    crowd = only(plots.confusion(np.eye(200, dtype=int), [str(n) for n in range(200)]))
    assert len(crowd.get_yticklabels()) < 20
    assert plots.confusion(np.zeros((2, 2), dtype=int), ["a", "b"]) is None


def test_one_trial_and_none_at_all() -> None:
    """With one trial there is something to see, without any there is no figure; none is drawn from failures."""
    for trials, some in (([trial(0, [0.5])], True), ([], False), ([TRIALS[2], trial(1, [math.inf])], False)):
        searched = plots.searched_of(trials, known=KINDS)
        figures = [
            plots.learning_curves(trials, "accuracy", "t000"),
            plots.history(trials, "accuracy", "t000"),
            plots.slices(searched, trials, "accuracy", "t000"),
            plots.parallel_coordinates(searched, trials, "accuracy", "t000"),
            plots.adapter_sizes(trials, "accuracy", "t000"),
        ]
        assert [figure is not None for figure in figures] == [some] * 5
        assert plots.importances(searched, trials, "accuracy") is None
        if some:
            # All the values of an axis are one: there is still something to lay out.
            assert figures[3] is not None
            assert plots.png(figures[3]).startswith(b"\x89PNG")


def test_texts_of_strangers_are_drawn_as_they_are(recwarn: pytest.WarningsRecorder) -> None:
    """No mathematics in a `$`, no new lines, no complaint about a script that the font lacks; no global trace."""
    names = [
        r"$\frac{$",
        "a$b$",
        "<script>alert(1)</script>",
        "two\nlines",
        "../../x",
        "ニュース",
        "x" * 3000,
    ]
    before = dict(matplotlib.rcParams)
    pictures = [plots.confusion(np.eye(7, dtype=int), names)]
    kinds = {r"$\bad{$": CategoricalDistribution((r"$\frac{$", "ニュース\n")), "rank": KINDS["rank"]}
    trials = [
        trial(n, [0.5 + n / 10], **{r"$\bad{$": kinds[r"$\bad{$"].choices[n]}).model_copy(
            update={"searched": tuple(kinds)}
        )
        for n in range(2)
    ]
    searched = plots.searched_of(trials, known=kinds)
    pictures += [f(searched, trials, "accuracy") for f in (plots.slices, plots.parallel_coordinates)]
    for figure in pictures:
        assert figure is not None
        assert len(plots.png(figure)) > 5000
    assert dict(matplotlib.rcParams) == before
    assert not [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)]
    assert plots.short("a\tb\x00c" + "d" * 50 + "END", 13) == "a b cd…dddEND"
    assert plots.short("exactly", 7) == "exactly"
