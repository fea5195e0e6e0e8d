"""Data as Hugging Face's `datasets` keeps it: its folders, its Parquet files, and data sets of its hub."""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Value

from lorasweep.training.data.load import load_dataset
from lorasweep.training.errors import DataError
from lorasweep.training.files.tables import open_table
from lorasweep.training.files.whole_tables import WHOLE, read_table, read_tables
from lorasweep.training.settings import DataSettings

NAMES = ["neg", "pos", "NA"]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def made(rows: int, word: str = "text", labels: list[int] | None = None) -> datasets.Dataset:
    features = Features({"text": Value("string"), "label": ClassLabel(names=NAMES)})
    numbers = labels or [number % 3 for number in range(rows)]
    texts = [f"{word} {number}" for number in range(rows)]
    return datasets.Dataset.from_dict({"text": texts, "label": numbers}, features=features)


def refusal(path: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        read_tables(path, *arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_parquet_file_has_the_names_of_its_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    made(3, labels=[2, -1, 0]).to_parquet(path)
    assert pq.read_schema(path).field("label").type == pa.int64()
    stream = open_table(path)
    assert stream.types == (pa.string(), pa.string())
    for frame in (read_table(path).frame, next(stream.chunks()).frame):
        assert frame.to_dict("list") == {"text": ["text 0", "text 1", "text 2"], "label": ["NA", None, "neg"]}


@pytest.mark.parametrize(
    "entry",
    [
        "{broken",
        "[]",
        '{"info": 3}',
        '{"info": {"features": {"label": {"_type": "ClassLabel"}}}}',
        '{"info": {"features": {"gone": {"_type": "ClassLabel", "names": ["a"]}, "text": []}}}',
    ],
)
def test_what_is_no_list_of_classes_changes_nothing(tmp_path: Path, entry: str) -> None:
    table = pa.table({"text": ["a", "b"], "label": [0, 1]}).replace_schema_metadata({"huggingface": entry})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").frame["label"].tolist() == [0, 1]


def test_a_number_without_a_class_is_named(tmp_path: Path) -> None:
    features = {"label": {"names": NAMES, "_type": "ClassLabel"}}
    entry = json.dumps({"info": {"features": features}})
    table = pa.table({"text": ["a", "b"], "label": [0, 3]}).replace_schema_metadata({"huggingface": entry})
    pq.write_table(table, tmp_path / "a.parquet")
    assert "a.parquet, column 'label' holds 3, and has 3 classes" in refusal(tmp_path / "a.parquet")


def test_a_saved_data_set(tmp_path: Path) -> None:
    made(90).save_to_disk(tmp_path / "news", num_shards=3)
    tables = read_tables(tmp_path / "news")
    assert list(tables) == [WHOLE]
    assert tables[WHOLE].frame["text"].tolist() == [f"text {number}" for number in range(90)]
    dataset = load_dataset(DataSettings(path=f"{tmp_path / 'news'}/"), 0)
    assert (dataset.source, dataset.label_names) == ("news", ("NA", "neg", "pos"))
    assert [len(texts) for texts in dataset.splits().values()] == [72, 9, 9]


def test_saved_splits(tmp_path: Path) -> None:
    hidden = made(12, "hidden", labels=[-1] * 12)
    splits = {"train": made(60), "validation": made(12, "other"), "test": hidden, "unsupervised": hidden}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "news")
    path = str(tmp_path / "news")
    dataset = load_dataset(DataSettings(path=path), 0)
    assert dataset.notes == (
        f"{path}: 'unsupervised' is left out: not called train, validation, test",
        f"{path}, test has no labels and is left out",
    )
    assert (len(dataset.train) + len(dataset.test), len(dataset.validation)) == (60, 12)


@pytest.mark.parametrize(
    "names",
    [
        {"train": ["train-00000-of-00002", "train-00001-of-00002"], "test": ["test-00000-of-00001"]},
        {"train": ["data/train-0", "data/train-1"], "test": ["data/test"]},
        {"train": ["sst2/train/0000", "sst2/train/0001"], "test": ["sst2/test/0000"]},
    ],
)
def test_a_folder_of_parquet_files(tmp_path: Path, names: dict[str, list[str]]) -> None:
    for split, files in names.items():
        for number, name in enumerate(files):
            path = tmp_path / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            made(3, f"{split} {number}").to_parquet(path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "train.parquet").write_bytes(b"")
    (tmp_path / "README.md").write_text("# Data")
    tables = read_tables(tmp_path)
    assert {split: table.frame["text"].tolist() for split, table in tables.items()} == {
        "train": [f"train {number} {row}" for number in range(2) for row in range(3)],
        "test": [f"test 0 {row}" for row in range(3)],
    }
    assert tables["train"].frame["label"].tolist() == NAMES * 2


def test_files_without_a_split(tmp_path: Path) -> None:
    for number in range(2):
        made(2, f"part {number}").to_parquet(tmp_path / f"part-{number}.parquet")
    assert read_tables(tmp_path)[WHOLE].frame["text"].tolist() == [
        f"part {n} {row}" for n in (0, 1) for row in (0, 1)
    ]
    made(2).to_parquet(tmp_path / "train.parquet")
    (note,) = read_tables(tmp_path)["train"].notes
    assert note.endswith("'part-0.parquet', 'part-1.parquet' is left out: not called train, validation, test")


def test_an_arrow_file_of_either_kind_and_packed(tmp_path: Path) -> None:
    table = made(5).data.table
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "c.arrow.gz").write_bytes(gzip.compress((tmp_path / "b.arrow").read_bytes()))
    for name in ("a.arrow", "b.arrow", "c.arrow.gz"):
        assert read_table(tmp_path / name).frame["label"].tolist() == ["neg", "pos", "NA", "neg", "pos"]
        assert [len(chunk.frame) for chunk in open_table(tmp_path / name).chunks(2)] == [2, 2, 1]
    (tmp_path / "d.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:-40])
    assert "d.arrow is not a readable Arrow file" in refusal(tmp_path / "d.arrow")


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    assert "is a folder without Parquet or Arrow files; name one file in it" in refusal(tmp_path)
    for name in ("cola/train", "sst2/train"):
        (tmp_path / name).mkdir(parents=True)
        made(2).to_parquet(tmp_path / name / "0.parquet")
    assert "holds several data sets ('cola', 'sst2'); name the folder of one" in refusal(tmp_path)
    assert "--delimiter is for CSV and TSV" in refusal(tmp_path / "sst2", delimiter=";")
    assert "--columns is for CSV and TSV" in refusal(tmp_path / "sst2", ("text", "label"))
    with pytest.raises(DataError, match="is a folder; name one file in it"):
        open_table(tmp_path / "sst2")
    saved = tmp_path / "saved"
    datasets.DatasetDict({"all": made(2)}).save_to_disk(saved)
    assert "has the splits 'all', and none is train, validation, test" in refusal(saved)
    (saved / "dataset_dict.json").write_text('{"splits": 3}')
    assert "is not a data set that `datasets` has saved" in refusal(saved)
    (saved / "dataset_dict.json").write_text('{"splits": ["train", "../all/train"]}')
    assert "is not a data set that `datasets` has saved (" in refusal(saved)


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def load(name: str, configuration: str | None = None) -> datasets.DatasetDict:
        asked.append((name, configuration))
        return datasets.DatasetDict(train=made(60), test=made(12, "test", [-1] * 12), other=made(3))

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    dataset = load_dataset(DataSettings(path="nyu-mll/glue:sst2"), 0)
    assert asked == [("nyu-mll/glue", "sst2")]
    assert (dataset.source, dataset.label_names) == ("nyu-mll/glue:sst2", ("NA", "neg", "pos"))
    assert dataset.notes == (
        "nyu-mll/glue:sst2: 'other' is left out: not called train, validation, test",
        "nyu-mll/glue:sst2, test has no labels and is left out",
    )
    assert [len(texts) for texts in dataset.splits().values()] == [48, 6, 6]
    assert "--encoding and --sheet are for files; leave them out" in refusal("owner/name", encoding="cp1252")
    # What is there goes before the hub.
    made(2).save_to_disk(tmp_path / "owner" / "name")
    assert list(read_tables("owner/name")) == [WHOLE]
    assert asked[1:] == []


def test_a_data_set_that_the_hub_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, configuration: str | None = None) -> None:
        raise ValueError(
            "Config name is missing.\nPlease pick one among the available configs: ['cola', 'sst2']"
        )

    monkeypatch.setattr(datasets, "load_dataset", fail)
    assert "cannot be loaded: Config name is missing. Please pick one among" in refusal("nyu-mll/glue")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "no such file; to load it as a data set of the hub: pip install -e '.[datasets]'" in refusal("a/b")


@pytest.mark.parametrize(
    "path", ["data/rows.csv", "rows", "a/b/c", "/tmp/rows", "data/" + "x" * 300 + ".csv", "../a"]
)
def test_other_paths_are_files(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "hub" not in refusal(path)
