"""A row of a comparison on the tiny BERT: trained by its best evaluation, measured in each form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_trials import CPU, FP32, LABELS, dataset

from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.state import Evaluation, TrainingState
from lorasweep.training.model.base_model import resolve_base_model
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.scores.scorer import Scorer
from lorasweep.training.scores.scores import predict_logits
from lorasweep.training.settings import Hyperparameters, TrainingSettings
from lorasweep.tuning.compare.measure import measure
from lorasweep.tuning.compare.record import Latency

SETTINGS = TrainingSettings(epochs=2, evaluations_per_epoch=2, precision="fp32")
LORA = Hyperparameters(rank=2, alpha=4, target_modules="query-value", learning_rate=1e-2, batch_size=8)
FULL = Hyperparameters(method="full", learning_rate=1e-3, batch_size=8)
BF16 = AmpPolicy("bf16", CPU)
SCORER = Scorer.of(LABELS)


@pytest.mark.parametrize(
    ("hyperparameters", "forms"), [(LORA, ["adapter", "merged"]), (FULL, ["whole"])], ids=["lora", "full"]
)
def test_a_row_is_trained_and_measured(
    tiny_base: Callable[[str], Path], hyperparameters: Hyperparameters, forms: list[str]
) -> None:
    data = dataset(44)
    heard: list[Evaluation] = []
    base = resolve_base_model(str(tiny_base("bert")))
    logits, found = measure(base, data, hyperparameters, SETTINGS, SCORER, FP32, BF16, heard.append)
    assert [evaluation.rung for evaluation in heard] == [1, 2, 3, 4]
    assert logits.shape == (len(data.test), 3)
    assert found.validation_score == max(evaluation.scores.accuracy for evaluation in heard)
    assert found.epoch_seconds * found.samples_per_second == pytest.approx(len(data.train))
    speeds = sorted(evaluation.samples_per_second for evaluation in heard[1:])
    assert found.samples_per_second == speeds[1]
    shown = {(entry.form, entry.precision, entry.batch) for entry in found.latencies}
    assert shown == {(form, name, batch) for form in forms for name in ("fp32", "bf16") for batch in (1, 32)}
    assert found.trainable_parameters * 4 < found.stored_bytes
    assert {use.name for use in found.operators} > {"linear (addmm, mm)", "gelu", "layer norm"}


def test_the_test_split_is_predicted_by_the_best_evaluation(
    tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the last: its weights are made useless here."""
    data = dataset(44)
    kept: list[tuple[float, np.ndarray]] = []

    def spoiled(state: TrainingState, *arguments: object, **more: object) -> Iterator[Evaluation]:
        for evaluation in fine_tune(state, data, LORA, SETTINGS):
            if evaluation.rung == SETTINGS.rungs:
                evaluation = Evaluation(
                    **{**vars(evaluation), "scores": type(evaluation.scores)(0.0, 0.0, 9.0)}
                )
            elif not kept or evaluation.scores.accuracy >= kept[0][0]:
                kept[:] = [(evaluation.scores.accuracy, predict_logits(state.model, data.test, FP32))]
            yield evaluation

    monkeypatch.setattr("lorasweep.tuning.compare.measure.fine_tune", spoiled)
    logits, found = measure(
        resolve_base_model(str(tiny_base("bert"))), data, LORA, SETTINGS, SCORER, FP32, BF16
    )
    assert found.validation_score == kept[0][0]
    np.testing.assert_allclose(logits, kept[0][1], atol=1e-6)


def test_what_memory_does_not_suffice_for_is_left_out(
    tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the training had to divide its batches: its scores count nevertheless."""

    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def full_for_many(model: object, texts: object, amp: AmpPolicy, batch: int, form: str) -> Latency:
        if batch > 1:
            full()
        return Latency(form=form, precision=amp.name, batch=batch, median=1.0, p95=2.0)

    monkeypatch.setattr("lorasweep.tuning.compare.measure.profile_step", full)
    monkeypatch.setattr("lorasweep.tuning.compare.measure.measure_latency", full_for_many)
    base = resolve_base_model(str(tiny_base("bert")))
    logits, found = measure(base, dataset(44), LORA, SETTINGS, SCORER, FP32, FP32)
    assert logits.shape == (12, 3)
    assert found.operators == ()
    assert [(latency.form, latency.batch) for latency in found.latencies] == [("adapter", 1), ("merged", 1)]

    def broken(*arguments: object) -> None:
        raise RuntimeError("device-side assert triggered")

    monkeypatch.setattr("lorasweep.tuning.compare.measure.profile_step", broken)
    with pytest.raises(RuntimeError, match="device-side"):
        measure(base, dataset(44), LORA, SETTINGS, SCORER, FP32, FP32)


def test_several_labels_are_judged_by_the_rule_that_is_given(
    tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each evaluation, and in the thresholds that the test split is scored with."""
    monkeypatch.setattr("lorasweep.tuning.compare.measure._latencies", lambda *arguments: [])
    monkeypatch.setattr("lorasweep.tuning.compare.measure.profile_step", lambda *arguments: [])
    single = dataset(44)
    splits = {"train": single.train, "validation": single.validation, "test": single.test}
    sets = {name: np.eye(3, dtype=np.uint8)[split.labels] for name, split in splits.items()}
    data = single.relabelled(sets, LABELS)
    scorer = replace(SCORER, several=True, rule="0.25")
    heard: list[Evaluation] = []
    settings = SETTINGS.model_copy(update={"metric": "micro_f1"})
    base = resolve_base_model(str(tiny_base("bert")))
    _, found = measure(base, data, LORA, settings, scorer, FP32, BF16, heard.append)
    assert found.thresholds == (0.25,) * 3
    truth = data.validation.labels
    scores = [scorer.score(evaluation.logits, truth).more["micro_f1"] for evaluation in heard]
    assert [evaluation.scores.more["micro_f1"] for evaluation in heard] == scores
    assert found.validation_score == max(scores)
    # By the best F1 of each, which is the rule of none, they are others.
    by_f1 = [replace(scorer, rule=None).score(one.logits, truth).more["micro_f1"] for one in heard]
    assert scores != by_f1
