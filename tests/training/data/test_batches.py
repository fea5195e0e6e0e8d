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


class TestBalanced:
    labels = np.repeat([0, 1, 2, 4], [1900, 500, 100, 3])
    lengths = np.random.default_rng(3).integers(4, 60, size=2503)

    def drawn(self, seed: int = 0, epoch: int = 0) -> np.ndarray:
        return np.concatenate(epoch_batches(self.lengths, 16, seed, epoch, self.labels))

    def test_as_many_rows_equally_many_of_each_class(self) -> None:
        rows = self.drawn()
        counts = np.bincount(self.labels[rows], minlength=5)
        assert counts.sum() == 2503
        assert counts[3] == 0
        assert set(counts[[0, 1, 2, 4]]) == {625, 626}

    def test_no_row_comes_again_before_its_class_is_through(self) -> None:
        times = np.bincount(self.drawn(), minlength=2503)
        for label in (0, 1, 2, 4):
            assert np.ptp(times[self.labels == label]) <= 1

    def test_epochs_and_seeds_draw_others_and_the_same_ones_again(self) -> None:
        draws = [self.drawn(seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
        assert len({tuple(sorted(rows)) for rows in draws}) == 4
        assert self.drawn().tolist() == draws[0]
        often = np.bincount(np.concatenate(draws), minlength=2503)[self.labels == 0]
        assert often.max() <= 4  # of the large class other rows each time
        assert (often > 0).mean() > 0.7

    def test_batches_are_of_similar_length_and_mixed_classes(self) -> None:
        labels = np.repeat([0, 1, 2, 3], [1900, 480, 100, 23])
        batches = epoch_batches(self.lengths, 16, 0, 0, labels)
        padded = sum(self.lengths[rows].max() * len(rows) for rows in batches)
        assert padded < 1.12 * sum(self.lengths[rows].sum() for rows in batches)
        assert np.mean([len(set(labels[rows])) for rows in batches]) > 3.5
        # The 23 rows come 27 times each, and a row's copies not side by side.
        assert np.mean([np.bincount(rows).max() for rows in batches]) < 3

    def test_few_rows(self) -> None:
        lengths = np.array([5, 6, 7])
        rows = np.concatenate(epoch_batches(lengths, 2, 0, 0, np.array([1, 1, 1])))
        assert sorted(rows) == [0, 1, 2]
