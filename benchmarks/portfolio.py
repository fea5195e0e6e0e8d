"""A portfolio: settings to try first, chosen from recorded curves so that the first few suit as many sets as may be."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.linalg import cholesky
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from surrogate import OTHER_MODULES, Curve, place

DRAWS = 200
MODULES = ("query-value", "attention", "feed-forward", "all-linear")
# Regret is in units of what the middle setting loses to the best one. What loses more is as useless as this.
WORST = 2.0


def features(settings: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Settings as points whose Euclidean distance is the surrogate's; shape (settings, 8)."""
    places = np.array([place(each) for each in settings])
    modules = np.array([[each["target_modules"] == name for name in MODULES] for each in settings])
    return np.hstack([places, OTHER_MODULES / np.sqrt(2) * modules])


def losses_to_best(curves: Sequence[Curve], measure: str) -> np.ndarray:
    """What each setting loses to the best one of its set, in units of what the middle one loses, at most `WORST`.

    Args:
        measure: "accuracy" or "loss": the mean of the validation rows' best score and the held-out score there.
    """
    sign = 1.0 if measure == "loss" else -1.0
    bad = np.array([sign * (curve.best(measure) + curve.worth(measure)) / 2 for curve in curves])
    lost = bad - bad.min()
    return np.asarray(np.minimum(lost / np.median(lost), WORST))


def draws(points: np.ndarray, values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draws of what the settings really lose, noise taken away; shape (`DRAWS`, settings).

    From the posterior of a Gaussian process: neighbours in the space lose alike, and what a recorded value has beyond
    them is in part the luck of its seed and of its rows.
    """
    kernel = ConstantKernel(0.5, (0.05, 5)) * Matern(1.5, (0.3, 6), nu=2.5) + WhiteKernel(0.05, (0.005, 0.5))
    process = GaussianProcessRegressor(kernel, n_restarts_optimizer=2, random_state=seed, normalize_y=False)
    middle = float(np.median(values))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(points, values - middle)
    smooth, noise = process.kernel_.k1, process.kernel_.k2.noise_level
    within = smooth(points)
    solved = np.linalg.solve(within + noise * np.eye(len(points)), within).T
    mean = middle + solved @ (values - middle)
    covariance = within - solved @ within
    lower = cholesky(covariance + 1e-6 * np.eye(len(points)), lower=True)
    noise_drawn = np.random.default_rng(seed).standard_normal((DRAWS, len(points)))
    return np.asarray(mean + noise_drawn @ lower.T)


def greedy(lost: np.ndarray, size: int, first: Sequence[int] = ()) -> list[int]:
    """Candidates in the order of choice: each adds the most to the best of those before it.

    Args:
        lost: what each candidate loses in each case; shape (cases, candidates).
        first: candidates that are in it anyway, before the others.
    """
    chosen = list(first)
    best = lost[:, chosen].min(axis=1) if chosen else np.full(len(lost), np.inf)
    for _ in range(size - len(chosen)):
        means = np.minimum(best[:, None], lost).mean(axis=0)
        means[chosen] = np.inf
        chosen.append(int(means.argmin()))
        best = np.minimum(best, lost[:, chosen[-1]])
    return chosen


def fit(
    sets: Sequence[Sequence[Curve]],
    size: int,
    *,
    measure: str = "loss",
    smooth: bool = True,
    first: Sequence[int] = (),
) -> list[int]:
    """The numbers of the chosen settings, which must be the same ones on every set.

    Args:
        measure: see `losses_to_best`. The loss is the default: it is less noisy than the accuracy, and portfolios
            fitted to it have the better accuracy on a set that they were fitted without.
        smooth: take the noise away, see `draws`.
        first: settings that stand first anyway; without them, the best one alone stands first.
    """
    points = features([curve.settings for curve in sets[0]])
    cases = []
    for curves in sets:
        lost = losses_to_best(curves, measure)
        drawn = draws(points, lost) if smooth else lost[None]
        cases.append(drawn - drawn.min(axis=1, keepdims=True))
    return greedy(np.vstack(cases), size, first)
