"""Where labels were merged: the winner's settings trained once more on the labels as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.encoding import EncodedDataset
from lorasweep.training.scores.scores import score_merged
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.folder import SweepFolder, TestScores, UnmergedReference
from lorasweep.tuning.sweep.after_trials import run_alone, score_test, train_reference
from lorasweep.tuning.sweep.plan import SweepPlan
from lorasweep.tuning.trials.cluster import Resources
from lorasweep.tuning.trials.trial import TrialSetup


def unmerged_reference(
    plan: SweepPlan,
    folder: SweepFolder,
    hyperparameters: Hyperparameters,
    resources: Resources,
    setup: TrialSetup,
    tell: Callable[[str], None],
) -> UnmergedReference | None:
    """Train settings on the unmerged labels of the same rows, with the same budget and seed.

    What was trained for these settings before is read from the sweep's folder. None where no labels were merged.
    """
    dataset = plan.dataset
    if not dataset.original_names:
        return None
    known = folder.unmerged()
    if known is not None and known.hyperparameters == hyperparameters:
        return known
    tell("training the winner's settings on the unmerged labels")
    data = unmerged_data(dataset, plan.encoded)
    trained = run_alone(
        plan.config.resources.address, resources, train_reference, hyperparameters, data, setup
    )
    found = UnmergedReference(
        hyperparameters=hyperparameters,
        classes=len(dataset.original_names),
        score=trained.validation_score,
        test=score_test(trained.logits, data.test.labels),
        merged=score_after_merging(dataset, trained.logits),
        seconds=trained.seconds,
    )
    folder.write_unmerged(found)
    return found


def unmerged_data(dataset: Dataset, encoded: EncodedDataset) -> EncodedDataset:
    """The rows under their labels before these were merged."""
    splits = dataset.splits().items()
    labels = {name: texts.original for name, texts in splits if texts.original is not None}
    return encoded.relabelled(labels, dataset.original_names)


def score_after_merging(dataset: Dataset, logits: np.ndarray) -> TestScores:
    """Scores on the test split of predictions of unmerged classes, each taken for its merged class.

    Args:
        logits: float, shape (rows, unmerged classes).
    """
    return TestScores(**asdict(score_merged(logits, dataset.test.labels, dataset.merge_index())))
