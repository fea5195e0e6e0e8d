import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from lorasweep.training.data.columns import texts_and_pairs
from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.load import load_dataset
from lorasweep.training.data.summary import data_notes, describe, summary_lines
from lorasweep.training.errors import DataError, LorasweepError, SettingsError
from lorasweep.training.files.whole_tables import read_table
from lorasweep.training.settings import DataSettings


def news(count: int, **more: Any) -> list[dict[str, Any]]:
    """Rows in HuffPost's format, three in a class POLITICS to one in ARTS."""
    return [
        {
            "link": f"https://example.org/{number}",
            "headline": f"Headline {number}",
            "category": "ARTS" if number % 4 == 0 else "POLITICS",
            "short_description": f"What happened {number}",
            "authors": "",
            "date": "2024-01-01",
        }
        | more
        for number in range(count)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return str(path)


def accounted(dataset: Dataset) -> int:
    splits = sum(len(texts) for texts in dataset.splits().values())
    return splits + sum(dataset.dropped.values()) + sum(dataset.left_out_classes.values())


def test_huffpost_rows_need_no_flags(tmp_path: Path) -> None:
    dataset = load_dataset(DataSettings(path=write(tmp_path / "news.json", news(100))), seed=0)
    assert (dataset.text_columns, dataset.label_column) == (("headline", "short_description"), "category")
    assert dataset.label_names == ("ARTS", "POLITICS")
    assert dataset.source == "news.json"
    assert [len(texts) for texts in dataset.splits().values()] == [78, 11, 11]
    number = int(dataset.train.text[0].split()[1])
    assert dataset.train.pair is not None
    assert dataset.train.pair[0] == f"What happened {number}"
    assert dataset.label_names[dataset.train.labels[0]] == ("ARTS" if number % 4 == 0 else "POLITICS")
    assert (dataset.rows_read, accounted(dataset), dataset.dropped) == (100, 100, {})


def test_the_same_seed_gives_the_same_rows_and_fingerprint(tmp_path: Path) -> None:
    settings = DataSettings(path=write(tmp_path / "news.json", news(100)))
    one, same, other = (load_dataset(settings, seed) for seed in (3, 3, 4))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.train.text == same.train.text != other.train.text


def test_every_row_read_is_accounted_for(tmp_path: Path) -> None:
    rows = news(100)
    rows[1]["headline"] = "  "
    rows[2] |= {"headline": "", "short_description": None}
    rows[3]["category"] = " "
    del rows[4]["category"]
    rows[5] |= {"headline": "HEADLINE 6", "short_description": "what  happened 6"}
    rows[8] |= {"headline": "Headline 7 ", "short_description": "What happened 7"}
    rows += [rows[0] | {"headline": f"wed {number}", "category": "WEDDINGS"} for number in range(2)]
    path = write(tmp_path / "news.jsonl", rows)
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("\n{broken")
    dataset = load_dataset(DataSettings(path=path, max_train_rows=40, max_validation_rows=5), seed=0)
    assert list(dataset.dropped) == [
        "not a JSON object",
        "no text",
        "no label",
        "same text again",
        "same text under another label",
        "beyond --max-train-rows",
        "beyond --max-validation-rows",
    ]
    assert list(dataset.dropped.values())[:5] == [1, 1, 2, 1, 1]
    assert dataset.left_out_classes == {"WEDDINGS": 2}
    assert (len(dataset.train), len(dataset.validation)) == (40, 5)
    assert dataset.rows_read == accounted(dataset) == 103
    assert describe(dataset).rows_read == 103


def test_a_row_with_only_its_second_text_keeps_it_as_the_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*news(1), *news(1, headline=" "), *news(1, short_description="")])
    texts, pairs = texts_and_pairs(read_table(path), ("headline", "short_description"))
    assert texts == ["Headline 0", "What happened 0", "Headline 0"]
    assert pairs == ["What happened 0", "", ""]


def test_the_plan_says_in_which_encoding_a_file_was_read(tmp_path: Path) -> None:
    rows = "".join(f"caf\xe9 {number},{'ab'[number % 2]}\n" for number in range(40))
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_bytes(
            f"review,sentiment\n{rows}".replace("café", f"café {name}").encode("cp1252")
        )
    path = str(tmp_path / "a.csv")
    dataset = load_dataset(DataSettings(path=path), 0)
    assert dataset.train.text[0].startswith("café ")
    dataset.save(tmp_path / "saved")
    for one in (dataset, Dataset.load(tmp_path / "saved")):
        assert data_notes(describe(one))[0].startswith(f"{path} is read as cp1252, by its bytes")
    named = load_dataset(DataSettings(path=path, test_path=str(tmp_path / "b.csv"), encoding="cp1252"), 0)
    assert (named.notes, named.test.text[0]) == ((), "café b.csv 0")
    with pytest.raises(SettingsError, match="--encoding is for text files; a DataFrame has none"):
        load_dataset(DataSettings(encoding="cp1252"), 0, {"train": pd.DataFrame({"text": ["x"]})})


def splits_json(path: Path, **sizes: int) -> str:
    """A JSON file of splits with so many rows each."""
    rows = {
        split: [{"text": f"{split} {number}", "label": "ab"[number % 2]} for number in range(size)]
        for split, size in sizes.items()
    }
    path.write_text(json.dumps(rows))
    return str(path)


def test_the_keys_of_a_json_file_name_the_splits(tmp_path: Path) -> None:
    path = splits_json(tmp_path / "a.json", dev=6, train=60, test=8)
    dataset = load_dataset(DataSettings(path=path), 0)
    assert [len(texts) for texts in dataset.splits().values()] == [60, 6, 8]
    assert dataset.validation.text[0] == "dev 0"
    assert dataset.source == "a.json"
    # What is missing is split off.
    dataset = load_dataset(DataSettings(path=splits_json(tmp_path / "a.json", train=60, test=8)), 0)
    assert [len(texts) for texts in dataset.splits().values()] == [54, 6, 8]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"test_path": "plain"},
            r"a\.json has splits of its own \(train, test\), and --test .*plain\.json brings",
        ),
        ({"split_column": "label"}, "and --split-column label brings others; leave one of them out"),
        ({"split_by": "date"}, "and --split-by date brings others"),
    ],
)
def test_splits_of_a_file_are_not_made_again(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    path = splits_json(tmp_path / "a.json", train=60, test=8)
    more = {key: str(tmp_path / "plain.json") if value == "plain" else value for key, value in more.items()}
    with pytest.raises(SettingsError, match=message):
        load_dataset(DataSettings(path=path, **more), 0)


def test_a_file_of_splits_as_one_split(tmp_path: Path) -> None:
    both = splits_json(tmp_path / "both.json", train=10, test=8)
    train = write(tmp_path / "train.jsonl", [{"text": f"t{n}", "label": "ab"[n % 2]} for n in range(40)])
    assert len(load_dataset(DataSettings(path=train, test_path=both), 0).test) == 8
    with pytest.raises(DataError, match="holds the splits train, test, and no validation rows"):
        load_dataset(DataSettings(path=train, validation_path=both), 0)
    with pytest.raises(DataError, match="holds the splits test, and no train rows"):
        load_dataset(DataSettings(path=splits_json(tmp_path / "test.json", test=8)), 0)


@pytest.mark.parametrize("hidden", [{"text": "x", "label": None}, {"text": "x"}])
def test_a_test_split_without_labels_is_left_out(tmp_path: Path, hidden: dict[str, Any]) -> None:
    rows = [{"text": f"t{number}", "label": "ab"[number % 2]} for number in range(40)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"train": rows, "test": [hidden] * 9}))
    dataset = load_dataset(DataSettings(path=str(path)), 0)
    assert (len(dataset.test), dataset.notes) == (4, (f"{path}, test has no labels and is left out",))


def test_labels_keep_their_names_in_a_csv(tmp_path: Path) -> None:
    labels = ["NA", "null", "3", "None"]
    frame = pd.DataFrame({"text": [f"t{number}" for number in range(40)], "label": labels * 10})
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert load_dataset(DataSettings(path=str(tmp_path / "a.csv")), 0).label_names == (
        "3",
        "NA",
        "None",
        "null",
    )


def test_numbers_as_labels(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": [f"t{number}" for number in range(41)], "label": [10.0, 2.0] * 20 + [None]})
    frame.to_parquet(tmp_path / "a.parquet")
    dataset = load_dataset(DataSettings(path=str(tmp_path / "a.parquet")), 0)
    assert dataset.label_names == ("2", "10")
    assert dataset.dropped == {"no label": 1}


def test_a_number_is_one_class_however_files_write_it(tmp_path: Path) -> None:
    """In one CSV, in files of several formats, and in the label before merging."""
    rows = [(f"t{number}", f"{number % 12}" + ".0" * (number % 5 == 0)) for number in range(240)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "a.csv", index=False)
    write(tmp_path / "test.jsonl", [{"text": f"v{n}", "label": n % 12} for n in range(24)])
    (tmp_path / "map.yaml").write_text("low: ['0', '1', '2']\n")
    settings = DataSettings(path=str(tmp_path / "a.csv"), test_path=str(tmp_path / "test.jsonl"))
    dataset = load_dataset(settings, 0)
    assert dataset.label_names == tuple(str(number) for number in range(12))
    assert np.bincount(dataset.train.labels).tolist() == [18] * 12
    merged = load_dataset(settings.model_copy(update={"merge_labels": str(tmp_path / "map.yaml")}), 0)
    assert merged.original_names == dataset.label_names


def test_classes_that_are_left_out_can_be_told_from_their_rows(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": n % 3} for n in range(90)]
    rows += [{"text": f"few {n}", "label": 100 if n else 20} for n in range(3)]
    dataset = load_dataset(DataSettings(path=write(tmp_path / "a.jsonl", rows)), 0)
    lines = summary_lines(describe(dataset))
    assert "classes left out (too few rows for every split): 20 (1 row), 100 (2 rows)" in lines


def test_a_part_of_the_training_rows_comes_with_a_part_of_the_validation_rows(tmp_path: Path) -> None:
    """A quarter as many, but 200 and a row of each class; what is asked for goes before."""
    train = write(tmp_path / "a.jsonl", [{"text": f"a {n}", "label": n % 300} for n in range(2400)])
    held_out, test = (
        write(tmp_path / f"{name}.jsonl", [{"text": f"{name} {n}", "label": n % 300} for n in range(1200)])
        for name in "bc"
    )

    def rows(**options: int) -> int:
        data = DataSettings(path=train, validation_path=held_out, test_path=test, **options)
        return len(load_dataset(data, 0).validation)

    assert rows() == 1200
    assert rows(max_train_rows=600) == 300
    assert rows(max_train_rows=1600) == 400
    assert rows(max_train_rows=1600, max_validation_rows=350) == 350
    with pytest.raises(
        SettingsError, match="--max-validation-rows 200 is less than one row for each of the 300"
    ):
        rows(max_train_rows=600, max_validation_rows=200)


def test_a_split_column_divides(tmp_path: Path) -> None:
    rows = [
        *news(40, part="Train"),
        *[row | {"headline": f"{row['headline']} v"} for row in news(8, part="DEV")],
        *[row | {"headline": f"{row['headline']} t"} for row in news(8, part="testing")],
    ]
    path = write(tmp_path / "a.jsonl", rows)
    dataset = load_dataset(DataSettings(path=path, split_column="part", text=("headline",)), 0)
    assert [len(texts) for texts in dataset.splits().values()] == [40, 8, 8]
    assert dataset.validation.text[0] == "Headline 0 v"
    assert dataset.test.pair is None
    rows[41]["part"] = "unsupervised"
    write(tmp_path / "a.jsonl", rows)
    with pytest.raises(
        DataError, match=r"row 42: split column 'part' holds 'unsupervised'; it may hold train, training"
    ):
        load_dataset(DataSettings(path=path, split_column="part"), 0)
    with pytest.raises(
        DataError, match=r"no column 'fold' \(--split-column\); columns present: 'link', 'headline'"
    ):
        load_dataset(DataSettings(path=path, split_column="fold"), 0)


def test_separate_files(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", news(40))
    test = write(
        tmp_path / "test.jsonl", [row | {"headline": f"{row['headline']} t"} for row in news(8)] + news(1)
    )
    dataset = load_dataset(DataSettings(path=train, test_path=test), 0)
    assert [len(texts) for texts in dataset.splits().values()] == [35, 4, 9]
    assert dataset.dropped == {"text also in the test split": 1}
    assert dataset.source == "train.jsonl + test.jsonl"
    assert dataset.rows_read == accounted(dataset) == 49
    bare = write(tmp_path / "bare.jsonl", [{"headline": "x", "category": "ARTS"}])
    with pytest.raises(DataError, match=r"bare\.jsonl: no column 'short_description'"):
        load_dataset(DataSettings(path=train, validation_path=bare), 0)


def test_a_given_file_without_usable_rows_is_not_replaced_by_a_carved_split(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", news(40))
    again = write(tmp_path / "validation.jsonl", news(3))
    test = write(tmp_path / "test.jsonl", news(8))
    with pytest.raises(DataError, match="the validation split has no usable rows"):
        load_dataset(DataSettings(path=train, validation_path=again, test_path=test), 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"path": None, "test_path": "test.jsonl"},
        {"split_column": "authors", "validation_path": "validation.jsonl"},
        {"label": "headline", "text": ("headline",)},
        {"split_column": "headline", "text": ("headline",)},
        {"text": ("headline", "authors", "date")},
        {"max_train_rows": 1},
        {"max_validation_rows": 1},
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = write(tmp_path / "a.jsonl", news(40))
    with pytest.raises(SettingsError) as error:
        load_dataset(DataSettings(**{"path": path, **settings}), 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"headline": "", "short_description": None},
            "'headline', 'short_description' is empty in every row",
        ),
        ({"category": None}, "column 'category' is empty in every row"),
        ({"category": "ARTS"}, "the only label is 'ARTS'"),
        ({"category": {"ARTS": 1}}, "row 1: column 'category' holds {'ARTS': 1}"),
        ({"category": ["ARTS", "MEDIA"]}, "every text has the same labels ('ARTS', 'MEDIA')"),
    ],
)
def test_columns_without_content(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        load_dataset(DataSettings(path=write(tmp_path / "a.jsonl", news(40, **changes))), 0)
    assert message in str(error.value)


def test_a_csv_without_a_header_hints_at_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("".join(f"{'ab'[n % 2]},text {n}\n" for n in range(40)))
    with pytest.raises(DataError, match="if the file has no header line, name its columns with --columns"):
        load_dataset(DataSettings(path=str(tmp_path / "a.csv")), 0)
    dataset = load_dataset(DataSettings(path=str(tmp_path / "a.csv"), columns=("label", "text")), 0)
    assert (dataset.rows_read, dataset.label_names) == (40, ("a", "b"))


def test_a_csv_with_another_delimiter(tmp_path: Path) -> None:
    """Its name is in the error, whether a text holds a comma or none does."""
    path = tmp_path / "a.csv"
    for text in ("text", "one, two"):
        path.write_text("text;label\n" + "".join(f"{text} {n};{'ab'[n % 2]}\n" for n in range(40)))
        with pytest.raises(DataError, match=r"add --delimiter ';'$"):
            load_dataset(DataSettings(path=str(path)), 0)
        dataset = load_dataset(DataSettings(path=str(path), delimiter=";"), 0)
        assert (dataset.rows_read, dataset.label_names) == (40, ("a", "b"))
        assert dataset.train.text[0].startswith(text)
    frames = {"train": pd.read_csv(path, sep=";")}
    with pytest.raises(SettingsError, match="--delimiter is for CSV and TSV files"):
        load_dataset(DataSettings(path="DataFrame", delimiter=";"), 0, frames)


def test_strange_characters_survive_saving(tmp_path: Path) -> None:
    rows = news(40)
    rows[0] |= {"headline": 'nul \0, "quote", \ud800 and 😀\nnext', "short_description": "\udfff"}
    rows[1] |= {"category": "POLITICS"}
    dataset = load_dataset(DataSettings(path=write(tmp_path / "a.jsonl", rows)), 0)
    dataset.save(tmp_path / "saved")
    found = [text for texts in Dataset.load(tmp_path / "saved").splits().values() for text in texts.text]
    assert 'nul , "quote", \ufffd and 😀\nnext' in found


def dated(count: int, labels: str = "abcd") -> list[dict[str, Any]]:
    """A row a day, the newest first, with labels in turn."""
    days = pd.date_range("2020-01-01", periods=count).strftime("%Y-%m-%d")
    return [
        row | {"date": days[number], "category": labels[number % len(labels)]}
        for number, row in reversed(list(enumerate(news(count))))
    ]


def test_a_split_by_date(tmp_path: Path) -> None:
    """The newest rows are the test; what has no date, or a class that is too new, is counted."""
    rows = dated(200)
    rows[0]["category"] = "new"
    rows[50]["date"] = None
    rows[51]["date"] = "some day"
    path = write(tmp_path / "a.jsonl", rows)
    settings = DataSettings(path=path, split_by="date", max_train_rows=60, max_validation_rows=10)
    dataset = load_dataset(settings, 0)
    assert dataset.dropped == {
        "no readable date": 2,
        "beyond --max-train-rows": 98,
        "beyond --max-validation-rows": 10,
    }
    assert dataset.left_out_classes == {"new": 1}
    assert dataset.rows_read == accounted(dataset) == 200
    numbers = {
        split: [int(text.split()[1]) for text in texts.text] for split, texts in dataset.splits().items()
    }
    assert max(numbers["train"]) < min(numbers["validation"]) < 180 == min(numbers["test"])
    assert len(numbers["train"]) == 60
    # Stratified inside the split: four classes alike.
    assert set(np.bincount(dataset.train.labels).tolist()) <= {14, 15, 16}
    assert dataset.dates["test"] == ("2020-06-29", "2020-07-17")
    assert dataset.dates["train"][1] < dataset.dates["validation"][0]
    lines = summary_lines(describe(dataset))
    assert any(line.startswith("split by date: train 2020-01-0") for line in lines)
    assert "classes left out (no training row): new (1 row)" in lines
    assert load_dataset(settings, 0).fingerprint == dataset.fingerprint
    write(tmp_path / "a.jsonl", rows[::-1])
    assert load_dataset(settings, 0).fingerprint == dataset.fingerprint


def test_dates_in_every_kind_of_file(tmp_path: Path) -> None:
    frame = pd.DataFrame(dated(100)).drop(columns=["link", "authors"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    stamps = frame.assign(date=pd.to_datetime(frame["date"], utc=True)).rename(columns={"date": "when"})
    stamps.to_parquet(tmp_path / "a.parquet")
    counted = frame.assign(date=[int(pd.Timestamp(day).timestamp() * 1000) for day in frame["date"]])
    counted.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    found = [
        load_dataset(DataSettings(path=str(tmp_path / name), split_by="date", date=date), 0)
        for name, date in (("a.csv", None), ("a.parquet", "when"), ("a.jsonl", "date"))
    ]
    assert len({dataset.fingerprint for dataset in found}) == 1
    assert found[0].dates["test"] == ("2020-03-31", "2020-04-09")


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        (
            {"split_column": "authors"},
            SettingsError,
            "--split-by date makes the splits itself, and 'authors'",
        ),
        ({"test_path": "test.jsonl"}, SettingsError, "'test.jsonl' brings splits"),
        ({"validation_path": "v.jsonl"}, SettingsError, "'v.jsonl' brings splits"),
        ({"split_by": "random", "date": "date"}, SettingsError, "add --split-by date"),
        ({"date": "headline", "text": ("headline",)}, SettingsError, "--date 'headline' name a column twice"),
        ({"date": "day"}, DataError, "no column 'day' (--date); columns present: 'link'"),
        ({"date": "link"}, DataError, "row 1: column 'link' holds 'https://example.org/39'; 40 of 40 rows"),
    ],
)
def test_a_split_by_date_that_cannot_be(
    settings: dict[str, Any], error: type[Exception], told: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", dated(40))
    with pytest.raises(error) as refused:
        load_dataset(DataSettings(**{"path": path, "split_by": "date", **settings}), 0)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_a_date_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "label": ["a", "b"]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match="no date column recognised, name it with --date; columns present"):
        load_dataset(DataSettings(path=str(tmp_path / "a.csv"), split_by="date"), 0)


def test_merged_labels_with_the_old_ones_beside_them(tmp_path: Path) -> None:
    """Trained on is the merged class; each row keeps its own label too, also on disk."""
    (tmp_path / "map.yaml").write_text("c: [b, c]\nz: [absent]\n")
    path = write(tmp_path / "a.jsonl", dated(100))
    settings = DataSettings(path=path, merge_labels=str(tmp_path / "map.yaml"))
    dataset, plain = load_dataset(settings, 0), load_dataset(DataSettings(path=path), 0)
    assert dataset.label_names == ("a", "c", "d")
    assert dataset.original_names == plain.label_names == ("a", "b", "c", "d")
    assert dataset.merge_index().tolist() == [0, 1, 1, 2]
    assert dataset.fingerprint != plain.fingerprint
    dataset.save(tmp_path / "saved")
    for found in (dataset, Dataset.load(tmp_path / "saved")):
        for texts in found.splits().values():
            assert texts.original is not None
            numbers = [int(text.split()[1]) for text in texts.text]
            assert [found.original_names[label] for label in texts.original] == [
                "abcd"[n % 4] for n in numbers
            ]
            assert texts.labels.tolist() == found.merge_index()[texts.original].tolist()
    assert "labels merged by map.yaml: 4 classes become 3" in summary_lines(describe(dataset))
    assert "c (50 rows) = b (25 rows) + c (25 rows)" in summary_lines(describe(dataset))


def test_a_map_that_merges_nothing_leaves_nothing_to_compare(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("other: [b, absent]\n")
    path = write(tmp_path / "a.jsonl", dated(100))
    dataset = load_dataset(DataSettings(path=path, merge_labels=str(tmp_path / "map.yaml")), 0)
    assert dataset.label_names == ("a", "c", "d", "other")
    assert (dataset.original_names, dataset.train.original) == ((), None)
    assert "labels merged by map.yaml: none of the data's" in summary_lines(describe(dataset))


def test_labels_that_are_merged_may_label_one_text(tmp_path: Path) -> None:
    """The same text under two labels of one class is the same text again."""
    (tmp_path / "map.yaml").write_text("c: [b, c]\n")
    rows = dated(100)
    rows += [rows[-2] | {"category": "c"}]
    path = write(tmp_path / "a.jsonl", rows)
    merged = load_dataset(DataSettings(path=path, merge_labels=str(tmp_path / "map.yaml")), 0)
    assert merged.dropped == {"same text again": 1}
    assert load_dataset(DataSettings(path=path), 0).dropped == {"same text under another label": 1}


def test_no_path_means_the_sample_news() -> None:
    dataset = load_dataset(DataSettings(), 0)
    assert dataset.source == "sample news (made up)"
    assert dataset.text_columns == ("headline", "short_description")
    assert (len(dataset.label_names), dataset.left_out_classes) == (7, {})


@pytest.mark.parametrize(
    "labels",
    [
        pd.Series([1.0, 2.0, None] * 20),
        pd.Series([3, 4, 5] * 20),
        pd.Series(["a", "b", None] * 20, dtype="category"),
        pd.Series([True, False, False] * 20),
    ],
)
def test_a_frame_is_read_like_the_same_table_in_parquet(labels: pd.Series, tmp_path: Path) -> None:
    index = pd.Index(range(100, 160), name="row")
    frame = pd.DataFrame({"text": [f"t{n}" for n in range(60)], "label": labels.tolist()}).set_index(index)
    frame["label"] = labels.set_axis(index)
    before = frame.copy()
    frame.to_parquet(tmp_path / "a.parquet")
    of_file = load_dataset(DataSettings(path=str(tmp_path / "a.parquet")), 0)
    of_frame = load_dataset(DataSettings(), 0, {"train": frame})
    assert (of_frame.fingerprint, of_frame.dropped) == (of_file.fingerprint, of_file.dropped)
    assert (of_frame.source, of_file.source) == ("DataFrame", "a.parquet")
    pd.testing.assert_frame_equal(frame, before)


def test_frames_take_the_place_of_paths(tmp_path: Path) -> None:
    test = pd.DataFrame(news(8)).assign(headline=[f"Headline {number} t" for number in range(8)])
    path = write(tmp_path / "test.jsonl", test.to_dict("records"))
    frames = {"test": test, "train": pd.DataFrame(news(40))}
    of_frames = load_dataset(DataSettings(path="gone.csv"), 0, frames)
    of_both = load_dataset(DataSettings(test_path=path), 0, {"train": frames["train"]})
    assert of_frames.fingerprint == of_both.fingerprint
    assert of_frames.test.text == test["headline"].tolist()
    assert of_frames.source == "DataFrame + DataFrame of test rows"
    assert of_both.source == "DataFrame + test.jsonl"
    three = load_dataset(DataSettings(), 0, frames | {"validation": pd.DataFrame(news(8, authors="v"))})
    assert three.dropped == {"text also in the validation split": 8}


def test_half_a_surrogate_pair_in_a_frame_does_not_stop_the_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame(news(40), dtype=object)
    frame.loc[0, "headline"] = "a \ud800 b"
    dataset = load_dataset(DataSettings(), 0, {"train": frame})
    dataset.save(tmp_path)
    assert "a \ufffd b" in [text for texts in dataset.splits().values() for text in texts.text]


@pytest.mark.parametrize(
    ("frames", "settings", "message"),
    [
        ({"train": pd.DataFrame({"text": []})}, {}, "DataFrame holds no rows"),
        ({"train": pd.DataFrame({"a": ["x"]})}, {}, "DataFrame: no text column recognised"),
        (
            {"train": pd.DataFrame({"text": ["x", "y"], "label": [["a"], "b"]})},
            {},
            "DataFrame, row 1: column 'label'",
        ),
        (
            {"train": pd.DataFrame(news(40)), "test": pd.DataFrame({"headline": ["x"]})},
            {},
            "DataFrame of test rows: no column 'short_description'",
        ),
        ({"test": pd.DataFrame(news(4))}, {}, "'DataFrame of test rows' is given without training rows"),
        (
            {"train": pd.DataFrame(news(4)), "test": pd.DataFrame(news(4))},
            {"split_by": "date"},
            "'DataFrame of test rows' brings splits",
        ),
        ({"train": pd.DataFrame(news(4))}, {"columns": ("a", "b")}, "--columns is for CSV and TSV"),
        ({}, {"path": "DataFrame"}, "DataFrame: these rows were in memory; pass them again"),
        (
            {"valid": pd.DataFrame(news(4))},
            {},
            "'valid' names no split; name the DataFrames train, validation",
        ),
    ],
)
def test_frames_that_cannot_be_used(
    frames: dict[str, pd.DataFrame], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(LorasweepError) as error:
        load_dataset(DataSettings(**settings), 0, frames)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_take_one_name_as_a_tuple_and_refuse_the_unknown() -> None:
    assert DataSettings.model_validate({"text": "headline", "columns": ["a", "b"]}).text == ("headline",)
    with pytest.raises(ValidationError):
        DataSettings.model_validate({"max_train_rows": 0})
    with pytest.raises(ValidationError):
        DataSettings.model_validate({"labels": "category"})
    settings = DataSettings(path="a", text=("b", "c"))
    assert DataSettings.model_validate_json(settings.model_dump_json()) == settings
