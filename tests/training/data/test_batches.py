"""The rows that are chosen for each batch."""

import numpy as np
import pytest
import torch
from tiny_trials import CPU

from lorasweep.training.data.batches import CPU_EVALUATION, epoch_batches, evaluation_batches, evaluation_size

CUDA = torch.device("cuda")


class TestEpochBatches:
    lengths = np.random.default_rng(3).integers(4, 60, size=2503)

    def test_each_row_once_in_batches_of_the_asked_size(self) -> None:
        batches = epoch_batches(self.lengths, 16, seed=0, epoch=0)
        assert sorted(np.concatenate(batches)) == list(range(2503))
        assert len(batches) == 157
        assert sorted(len(batch) for batch in batches) == [7] + [16] * 156

    @pytest.mark.parametrize("rows", [1, 15, 16, 17])
    def test_few_rows(self, rows: int) -> None:
        batches = epoch_batches(self.lengths[:rows], 16, seed=0, epoch=0)
        assert len(batches) == -(-rows // 16)
        assert sorted(np.concatenate(batches)) == list(range(rows))

    def test_the_same_arguments_give_the_same_order(self) -> None:
        assert self.order(0, 1) == self.order(0, 1)

    def test_epochs_and_seeds_differ(self) -> None:
        orders = [self.order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
        assert len({tuple(order) for order in orders}) == 4

    def test_does_not_touch_the_global_random_numbers(self) -> None:
        np.random.seed(0)
        expected = np.random.random()
        np.random.seed(0)
        self.order(0, 0)
        assert np.random.random() == expected

    def test_little_is_padded(self) -> None:
        def waste(batches: list[np.ndarray]) -> float:
            padded = sum(self.lengths[rows].max() * len(rows) for rows in batches)
            return 1 - self.lengths.sum() / padded

        shuffled = np.random.default_rng(0).permutation(2503)
        random = waste([shuffled[i : i + 16] for i in range(0, 2503, 16)])
        assert random > 0.4
        assert waste(epoch_batches(self.lengths, 16, seed=0, epoch=0)) < 0.05

    def test_long_and_short_batches_are_mixed(self) -> None:
        batches = epoch_batches(self.lengths, 16, seed=0, epoch=0)
        means = np.array([self.lengths[rows].mean() for rows in batches])
        # Sorted batches would teach short texts first: neighbours must know nothing of each other.
        assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2

    def order(self, seed: int, epoch: int) -> list[int]:
        return [int(row) for row in np.concatenate(epoch_batches(self.lengths, 16, seed, epoch))]


def test_evaluation_batches_are_bounded_and_cover_each_row_once() -> None:
    lengths = np.random.default_rng(3).integers(4, 120, size=1001)
    batches = list(evaluation_batches(lengths, max_rows=64, max_tokens=1500))
    assert sorted(np.concatenate(batches)) == list(range(1001))
    assert max(len(rows) for rows in batches) == 64
    assert max(len(rows) * lengths[rows].max() for rows in batches) <= 1500
    padded = sum(len(rows) * lengths[rows].max() for rows in batches)
    assert padded < 1.1 * lengths.sum()


def test_evaluation_batches_on_a_gpu_hold_more() -> None:
    rows, tokens = evaluation_size(CUDA)
    assert tokens >= 4 * evaluation_size(CPU)[1]
    assert evaluation_size(CPU) == CPU_EVALUATION
    lengths = np.full(5000, 16)
    assert len(next(evaluation_batches(lengths, rows, tokens))) == min(rows, tokens // 16)


def test_a_row_longer_than_the_bound_stands_alone() -> None:
    assert [rows.tolist() for rows in evaluation_batches(np.array([5, 50, 6]), max_tokens=20)] == [
        [0, 2],
        [1],
    ]
