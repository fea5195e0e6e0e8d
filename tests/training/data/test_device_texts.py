"""Batches gathered on a device against plain padding."""

import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_trials import CPU, texts

from lorasweep.training.data.batches import evaluation_batches
from lorasweep.training.data.device_texts import DeviceTexts, is_unpadded, padded_length
from lorasweep.training.data.encoded import EncodedTexts

CUDA, META = torch.device("cuda"), torch.device("meta")


def padded(split: EncodedTexts, rows: list[int], length: int) -> dict[str, np.ndarray]:
    """The plain form: row by row, cut off or padded."""
    ids = np.full((len(rows), length), split.pad_id)
    mask = np.zeros((len(rows), length), np.int64)
    for place, row in enumerate(rows):
        own = split.input_ids[split.offsets[row] : split.offsets[row + 1]][:length]
        ids[place, : len(own)] = own
        mask[place, : len(own)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def read_only(split: EncodedTexts) -> EncodedTexts:
    """As Ray hands it to a worker."""
    buffers: list[pickle.PickleBuffer] = []
    dumped = pickle.dumps(split, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(dumped, buffers=[bytes(buffer.raw()) for buffer in buffers])  # type: ignore[no-any-return]


@pytest.fixture(params=["numpy", "torch"])
def gathering(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What gathers on a CPU, and what does on a GPU, here on the CPU."""
    if request.param == "torch":
        monkeypatch.setattr("lorasweep.training.data.device_texts.library", lambda _: torch)


@pytest.mark.usefixtures("gathering")
class TestDeviceTexts:
    split = texts(30, longest=20)
    typed = EncodedTexts(
        **{**vars(split), "type_ids": (np.arange(len(split.input_ids)) % 2).astype(np.uint8)}
    )

    @pytest.mark.parametrize("rows", [[0], [29], [3, 3, 7], list(range(29, -1, -1))])
    @pytest.mark.parametrize("extra", [None, -2, 0, 5, 40])
    @pytest.mark.parametrize("bool_masks", [False, True])
    def test_a_batch_is_the_rows_padded(self, rows: list[int], extra: int | None, bool_masks: bool) -> None:
        longest = int(self.split.lengths[rows].max())
        length = None if extra is None else longest + extra
        gathered = DeviceTexts(self.typed, CPU, bool_masks=bool_masks)
        batch = gathered.batch(np.array(rows), length)
        expected = padded(self.split, rows, length or longest)
        for name, array in expected.items():
            np.testing.assert_array_equal(batch[name], array)
        # Every other token of the flat array is of type 1, those of the padding are 0.
        starts = self.split.offsets[rows][:, None]
        types = (starts + np.arange(length or longest)) % 2 * expected["attention_mask"]
        np.testing.assert_array_equal(batch["token_type_ids"], types)
        assert {name: tensor.dtype for name, tensor in batch.items()} == {
            "input_ids": torch.int64,
            "attention_mask": torch.bool if bool_masks else torch.int64,
            "token_type_ids": torch.int64,
        }
        # The same by rows on the device.
        shape = gathered.shape(np.array(rows), length)
        placed = gathered.place(np.array(rows))
        other = gathered.batch(placed, shape.length, shape.full)
        assert other.keys() == batch.keys()
        assert all(torch.equal(other[name], tensor) for name, tensor in batch.items())
        assert all(other[name].dtype is tensor.dtype for name, tensor in batch.items())

    def test_its_shape_is_known_on_the_host(self) -> None:
        gathered = DeviceTexts(self.split, CPU)
        longest = self.split.lengths.max()
        same = np.flatnonzero(self.split.lengths == longest)
        assert gathered.shape(same) == (len(same), longest, True)
        assert gathered.shape(np.arange(30)) == (30, longest, False)
        assert gathered.shape(np.arange(30), 4) == (30, 4, True)
        assert gathered.shape(np.arange(30), 64).tokens == 30 * 64

    def test_only_a_batch_without_padding_has_a_mask_of_one_element(self) -> None:
        gathered = DeviceTexts(self.split, CPU, bool_masks=True)
        assert is_unpadded(gathered.batch(np.array([2]))["attention_mask"])
        assert is_unpadded(gathered.batch(np.arange(30), 4)["attention_mask"])
        assert not is_unpadded(gathered.batch(np.arange(30))["attention_mask"])
        assert not is_unpadded(gathered.batch(np.array([2]), 40)["attention_mask"])
        # Alone, neither a mask that a tokenizer made nor one true everywhere says so.
        plain = DeviceTexts(self.split, CPU).batch(np.array([2]))["attention_mask"]
        assert not is_unpadded(plain)
        assert not is_unpadded(plain.bool())

    def test_labels_lie_on_the_device(self) -> None:
        gathered = DeviceTexts(self.split, CPU)
        rows = np.array([5, 2, 5])
        assert gathered.labels[gathered.place(rows)].tolist() == self.split.labels[rows].tolist()
        assert DeviceTexts(self.split, META).labels.device == META

    def test_a_batch_waits_for_no_device(self) -> None:
        """On the meta device, any look at a value raises."""
        gathered = DeviceTexts(self.typed, META, bool_masks=True)
        for rows in (np.array([3]), np.arange(30)):
            batch = gathered.batch(rows)
            assert {tensor.device for tensor in batch.values()} == {META}
            assert {tuple(tensor.shape) for tensor in batch.values()} == {gathered.shape(rows)[:2]}
        gathered.batch(gathered.place(np.arange(30)), 24)

    def test_without_second_texts_all_types_are_0(self) -> None:
        assert self.split.type_ids is not None
        gathered = DeviceTexts(self.split, CPU)
        batch = gathered.batch(np.arange(30))
        assert batch["token_type_ids"].shape == batch["input_ids"].shape
        assert not batch["token_type_ids"].any()
        untyped = DeviceTexts(replace(self.split, type_ids=None), CPU)
        assert "token_type_ids" not in untyped.batch(np.arange(3))

    def test_what_gathers_a_splits_batches_does_not_travel_with_it(self) -> None:
        split = replace(self.split)
        before = len(pickle.dumps(split))
        batch = split.batch(np.arange(30), CPU)
        assert len(pickle.dumps(split)) == before
        again = pickle.loads(pickle.dumps(split)).batch(np.arange(30), CPU)
        assert all(torch.equal(again[name], tensor) for name, tensor in batch.items())

    def test_rows_on_the_device_need_a_length(self) -> None:
        with pytest.raises(ValueError, match="length"):
            DeviceTexts(self.split, CPU).batch(torch.arange(3))

    def test_on_a_cpu_it_shares_the_arrays_also_those_that_may_not_be_written(self) -> None:
        split = read_only(self.split)
        assert not split.input_ids.flags.writeable
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gathered = DeviceTexts(split, CPU)
            batch = split.batch(np.arange(30), CPU)
        shared = np.asarray(gathered._input_ids)
        assert shared.ctypes.data == split.input_ids.ctypes.data
        assert gathered.labels.data_ptr() == split.labels.ctypes.data
        np.testing.assert_array_equal(batch["input_ids"], self.split.batch(np.arange(30), CPU)["input_ids"])


@pytest.mark.parametrize(
    ("longest", "most", "expected"),
    [(1, 512, 8), (8, 512, 8), (9, 512, 16), (44, 46, 46), (46, 46, 46), (50, 46, 50), (512, 512, 512)],
)
def test_lengths_on_a_gpu_are_multiples_of_8_up_to_the_models_own(
    longest: int, most: int, expected: int
) -> None:
    assert padded_length(longest, most, CUDA) == expected
    assert padded_length(longest, most, CPU) == longest


def test_a_batch_on_a_gpu_is_padded_further(monkeypatch: pytest.MonkeyPatch) -> None:
    split = texts(30, longest=20)
    gathered = DeviceTexts(split, CPU, most=512)
    gathered.device = CUDA  # for the shapes alone
    row = int(np.flatnonzero(split.lengths == 16)[0])
    assert gathered.shape(np.array([row])) == (1, 16, True)
    assert gathered.shape(np.arange(30)) == (30, 24, False)


def test_rows_of_no_split_make_no_batches() -> None:
    empty = EncodedTexts(np.zeros(0, np.int32), None, np.zeros(1, np.int64), np.zeros(0, np.int64), 0)
    assert len(empty) == 0
    assert list(evaluation_batches(empty.lengths)) == []
