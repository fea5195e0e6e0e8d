"""Where labels were merged: the winner's settings trained once more on the labels as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from training.evaluate import score_merged
from tuning.cluster import Resources
from tuning.plan import SweepPlan
from tuning.record import SweepFolder, TestScores, UnmergedReference
from tuning.tasks import run_remote, score_test, train_reference
from tuning.trainable import TrialSetup


def unmerged_reference(
    plan: SweepPlan,
    folder: SweepFolder,
    settings: dict[str, Any],
    resources: Resources,
    setup: TrialSetup,
    tell: Callable[[str], None],
) -> UnmergedReference | None:
    """Train settings on the unmerged labels of the same rows, with the same budget and seed.

    What was trained for these settings before is read from the sweep's folder. None where no labels were merged.
    """
    import ray

    dataset = plan.dataset
    if not dataset.original_names:
        return None
    known = folder.unmerged()
    if known is not None and known.settings == settings:
        return known
    tell("training the winner's settings on the unmerged labels")
    labels = {name: texts.original for name, texts in dataset.splits().items() if texts.original is not None}
    data = plan.encoded.relabelled(labels, dataset.original_names)
    trained = ray.get(run_remote(resources, train_reference, settings, ray.put(data), setup))
    found = UnmergedReference(
        settings=settings,
        classes=len(dataset.original_names),
        score=trained.validation_score,
        test=score_test(trained.logits, labels["test"]),
        merged=TestScores(**asdict(score_merged(trained.logits, dataset.test.labels, dataset.merge_index()))),
        seconds=trained.seconds,
    )
    folder.write_unmerged(found)
    return found
