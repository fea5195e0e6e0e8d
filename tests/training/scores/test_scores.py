"""Scores against scikit-learn and PyTorch; predictions against a plain forward pass."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score
from tiny_trials import CPU, FP32, allow_meta, copies, hyperparameters, loaded, same, start, texts
from torch.nn import functional as F

from lorasweep.training.errors import TrainingError
from lorasweep.training.metrics import ALWAYS
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.fitting import device_texts
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.scores.noise import bootstrap_intervals
from lorasweep.training.scores.outcomes import all_outcomes, log_softmax
from lorasweep.training.scores.scorer import Scores
from lorasweep.training.scores.scores import predict_logits, score, score_classes, score_merged
from lorasweep.training.settings import higher_is_better

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 4, size=200)
LOGITS = (RANDOM.normal(size=(200, 4)) * 3 + 2 * np.eye(4)[LABELS]).astype(np.float32)


def test_merged_answers_are_scored_by_their_merged_class() -> None:
    """Classes 0 and 2 become one: answers by name, the loss by summed probabilities."""
    merged = np.array([0, 1, 0, 2])
    found = score_merged(LOGITS, merged[LABELS], merged)
    answers = merged[LOGITS.argmax(axis=1)]
    probabilities = np.exp(log_softmax(LOGITS))
    summed = np.stack([probabilities[:, merged == label].sum(axis=1) for label in range(3)], axis=1)
    assert found.accuracy == pytest.approx(accuracy_score(merged[LABELS], answers))
    assert found.macro_f1 == pytest.approx(f1_score(merged[LABELS], answers, average="macro"))
    assert found.loss == pytest.approx(log_loss(merged[LABELS], summed))
    assert found.accuracy > score(LOGITS, LABELS).accuracy
    # Where nothing is merged, the scores are the plain ones.
    same_classes = score_merged(LOGITS, LABELS, np.arange(4))
    assert same_classes.accuracy == score(LOGITS, LABELS).accuracy
    assert same_classes.loss == pytest.approx(score(LOGITS, LABELS).loss)


def test_scores_are_scikit_learns() -> None:
    scores = score(LOGITS, LABELS)
    predicted = LOGITS.argmax(axis=1)
    assert 0.3 < scores.accuracy < 0.9
    assert scores.accuracy == pytest.approx(accuracy_score(LABELS, predicted))
    assert scores.macro_f1 == pytest.approx(f1_score(LABELS, predicted, average="macro"))
    assert scores.loss == pytest.approx(log_loss(LABELS, np.exp(log_softmax(LOGITS))))
    assert scores.loss == pytest.approx(
        F.cross_entropy(torch.from_numpy(LOGITS), torch.from_numpy(LABELS)).item(), rel=1e-5
    )


def test_macro_f1_counts_a_class_that_is_never_predicted() -> None:
    logits = np.array([[2, 0, 0], [2, 0, 0], [0, 2, 0], [0, 2, 0]], np.float32)
    scores = score(logits, np.array([0, 0, 1, 2]))
    assert scores.macro_f1 == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_log_softmax_of_large_logits() -> None:
    large = np.array([[1000.0, 0.0], [-1000.0, -1001.0]], np.float32)
    np.testing.assert_allclose(log_softmax(large), [[0, -1000], [-0.313262, -1.313262]], atol=1e-6)


def test_a_loss_that_is_not_a_number_shows() -> None:
    assert np.isnan(score(np.array([[np.nan, 0.0]], np.float32), np.array([0])).loss)


def test_scores_of_each_class_are_scikit_learns() -> None:
    names = ("a", "b", "c", "d", "absent")
    found = score_classes(LOGITS.argmax(axis=1), LABELS, names)
    predicted = LOGITS.argmax(axis=1)
    assert [entry.label for entry in found] == list(names)
    assert [entry.rows for entry in found] == np.bincount(LABELS, minlength=5).tolist()
    each = {"average": None, "zero_division": 0, "labels": range(5)}
    np.testing.assert_allclose([entry.f1 for entry in found], f1_score(LABELS, predicted, **each))
    np.testing.assert_allclose([entry.recall for entry in found], recall_score(LABELS, predicted, **each))
    np.testing.assert_allclose(
        [entry.precision for entry in found], precision_score(LABELS, predicted, **each)
    )


def test_scores_by_name() -> None:
    scores = Scores(accuracy=0.5, macro_f1=0.4, loss=1.5)
    assert [scores.by(metric) for metric in ("accuracy", "macro_f1", "loss")] == [0.5, 0.4, 1.5]
    assert [higher_is_better(metric) for metric in ("accuracy", "macro_f1", "loss")] == [True, True, False]


@pytest.mark.parametrize("family", ["bert", "modernbert", "deberta-v2"])
def test_predictions_equal_a_plain_forward_row_by_row(tiny_base: Callable[[str], Path], family: str) -> None:
    split = texts(150, longest=40, typed=family == "bert")
    model = start(loaded(tiny_base(family)), hyperparameters(dropout=0.5, base_dropout=0.5)).model
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight.data, std=0.1)
    logits = predict_logits(model, split, FP32)
    assert (logits.dtype, logits.shape) == (np.float32, (150, 3))
    assert logits.std(axis=0).min() > 0.01  # different texts, different logits
    model.eval()
    with torch.no_grad():
        plain = torch.cat([model(**split.batch(np.array([row]), CPU)).logits for row in range(150)])
    np.testing.assert_allclose(logits, plain.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_predicting_changes_neither_mode_nor_weights(
    tiny_base: Callable[[str], Path], training: bool
) -> None:
    model = start(loaded(tiny_base("bert")), hyperparameters(dropout=0.5)).model.train(training)
    before, modes = copies(model), [module.training for module in model.modules()]
    random = torch.get_rng_state()
    predict_logits(model, texts(20), FP32)
    assert [module.training for module in model.modules()] == modes
    assert same(before, copies(model))
    assert torch.equal(torch.get_rng_state(), random)


def test_the_mode_is_put_back_after_an_error(tiny_base: Callable[[str], Path]) -> None:
    model = start(loaded(tiny_base("bert")), hyperparameters()).model
    broken = texts(20)
    broken.input_ids[5] = 10**6  # no such token
    with pytest.raises(IndexError):
        predict_logits(model, broken, FP32)
    assert model.training


def test_predictions_of_texts_that_are_on_the_device_are_the_same(tiny_base: Callable[[str], Path]) -> None:
    model = start(loaded(tiny_base("bert")), hyperparameters()).model
    split = texts(150, longest=40)
    kept = device_texts(model, split, CPU)
    expected = predict_logits(model, split, FP32)
    for _ in range(2):
        assert np.array_equal(predict_logits(model, kept, FP32), expected)


def test_predicting_waits_for_the_device_only_at_its_end(
    tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device, which has no values to wait for, it comes as far as the copy of all logits."""
    allow_meta(monkeypatch)
    meta = AmpPolicy("fp32", torch.device("meta"))
    model = build_classifier(loaded(tiny_base("bert")), hyperparameters(), 0, meta).to(meta.device)
    seen: list[int] = []
    model.register_forward_hook(lambda _, inputs, output: seen.append(len(output.logits)))
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        predict_logits(model, texts(4000), meta)
    assert len(seen) > 2
    assert sum(seen) == 4000


class Small:
    """A device whose memory holds a batch of some padded tokens; a pre-hook of a model."""

    def __init__(self, tokens: int, error: Exception) -> None:
        self.tokens, self.error, self.asked = tokens, error, list[int]()

    def __call__(self, _: torch.nn.Module, args: tuple[()], inputs: dict[str, torch.Tensor]) -> None:
        self.asked.append(inputs["input_ids"].numel())
        if self.asked[-1] > self.tokens:
            raise self.error


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, RuntimeError("[enforce fail] can't allocate memory")])
def test_batches_are_halved_where_memory_runs_out(tiny_base: Callable[[str], Path], error: Exception) -> None:
    model = start(loaded(tiny_base("bert")), hyperparameters()).model
    split = texts(600)
    expected = predict_logits(model, split, FP32)
    small = Small(300, error)
    model.register_forward_pre_hook(small, with_kwargs=True)
    np.testing.assert_allclose(predict_logits(model, split, FP32), expected, rtol=1e-4, atol=1e-5)
    # It learns once how much fits, in few tries, and does not go on with single rows.
    failures = [tokens for tokens in small.asked if tokens > small.tokens]
    assert 1 <= len(failures) <= 3
    assert small.asked[: len(failures)] == failures
    assert np.median(small.asked) > 75


def test_memory_too_small_for_a_row_is_one_line(tiny_base: Callable[[str], Path]) -> None:
    model = start(loaded(tiny_base("bert")), hyperparameters()).model
    split = texts(40)
    longest = int(split.lengths.max())
    model.register_forward_pre_hook(Small(longest - 1, OUT_OF_MEMORY), with_kwargs=True)
    with pytest.raises(TrainingError, match=f"a single row of {longest} tokens: lower max_length") as caught:
        predict_logits(model, split, FP32)
    assert "\n" not in str(caught.value)
    assert model.training


def test_other_errors_are_not_taken_for_it(tiny_base: Callable[[str], Path]) -> None:
    model = start(loaded(tiny_base("bert")), hyperparameters()).model
    small = Small(15, RuntimeError("shapes cannot be multiplied"))
    model.register_forward_pre_hook(small, with_kwargs=True)
    with pytest.raises(RuntimeError, match="multiplied"):
        predict_logits(model, texts(40), FP32)
    assert len(small.asked) == 1


def test_bf16_predictions_come_back_in_fp32(tiny_base: Callable[[str], Path]) -> None:
    model = start(loaded(tiny_base("bert")), hyperparameters()).model
    split = texts(20)
    half = predict_logits(model, split, AmpPolicy("bf16", CPU))
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, predict_logits(model, split, FP32), atol=0.2)


def test_bootstrap_intervals_cover_the_score_as_theory_says() -> None:
    """Of a share the standard error is known; more rows narrow the interval; the same seed, the same numbers."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 2000)
    right = random.random(2000) < 0.7
    answers = np.where(right, labels, (labels + 1) % 4)
    logits = np.eye(4)[answers] * 3.0
    found = bootstrap_intervals(all_outcomes(logits, labels), ALWAYS)
    scores = score(logits, labels)
    low, high = found["accuracy"]
    assert low < scores.accuracy < high
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(0.7 * 0.3 / 2000), rel=0.1)
    assert found["macro_f1"][0] < scores.macro_f1 < found["macro_f1"][1]
    assert found["loss"][0] < scores.loss < found["loss"][1]
    assert found == bootstrap_intervals(all_outcomes(logits, labels), ALWAYS)
    few = bootstrap_intervals(all_outcomes(logits[:200], labels[:200]), ALWAYS)["accuracy"]
    assert few[1] - few[0] > 2 * (high - low)


def test_a_bootstrap_of_nothing_but_right_answers() -> None:
    found = bootstrap_intervals(all_outcomes(np.eye(3) * 9, np.arange(3)), ALWAYS, draws=50)
    assert found["accuracy"] == (1.0, 1.0)
    assert found["macro_f1"] == (1.0, 1.0)
