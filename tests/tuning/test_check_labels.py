"""`lorasweep check-labels` on a real sweep with wrong labels: killed, resumed, its file filled, and trained on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from whole_sweeps import RUN, lorasweep, started, wait_for

import lorasweep as face
from lorasweep.training.data.dataset import Dataset
from lorasweep.training.sample_news.sample import sample_news
from lorasweep.tuning.record.folder import SweepFolder

pytestmark = pytest.mark.slow

WRONG = 24
CLASSES = ("SPORTS", "BUSINESS", "HEALTH")


def write_noisy(path: Path) -> dict[str, str]:
    """240 sample news of three classes by their telling words, with 24 wrong labels; text → the right one."""
    news = sample_news(1200)
    news = news[news["category"].isin(CLASSES)].head(240).reset_index(drop=True)
    telling = dict(
        zip(CLASSES, ("vaccine doctors study", "markets bank shares", "film star album"), strict=True)
    )
    # A tiny random model knows few words: each row has some that tell its class.
    random = np.random.default_rng(0)
    texts = [
        f"{' '.join(random.choice(telling[row.category].split(), 4))} {number}: {row.headline}"
        for number, row in enumerate(news.itertuples())
    ]
    right = news["category"].tolist()
    wrong = random.choice(len(news), WRONG, replace=False)
    labels = [
        CLASSES[(CLASSES.index(label) + 1) % 3] if number in wrong else label
        for number, label in enumerate(right)
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip(texts, labels, strict=True)])
    return {texts[number]: right[number] for number in wrong}


def test_wrong_labels_are_found_corrected_and_trained_on(place: Path) -> None:
    wrong = write_noisy(place / "rows.csv")
    arguments = ["--epochs", "6", "--trials", "1", "--no-register", "--space", "quickstart"]
    lorasweep(place, *RUN, *arguments, "--name", "noisy")
    folder = SweepFolder(place / "mlruns", "noisy")
    data = Dataset.load(folder.data)
    check = ["check-labels", "noisy", "--folds", "4", "--output", "check.csv"]

    with started(place, *check) as process:
        wait_for(lambda: len(list(folder.label_check.glob("fold-*"))) >= 1, process)
        process.kill()
        process.wait()
    done = {path: path.stat().st_mtime_ns for path in folder.label_check.glob("fold-*")}
    assert 1 <= len(done) < 4
    assert not (place / "check.csv").exists()
    assert folder.state() == "finished"
    out, err = lorasweep(place, *check)
    assert err == ""
    assert f"{len(done)} of 4 folds predicted" in out
    assert "0 of 4 folds predicted" not in out
    assert (
        done.items() <= {path: path.stat().st_mtime_ns for path in folder.label_check.glob("fold-*")}.items()
    )
    table = out[out.index("training rows, each predicted by") :].split("\n# ")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "lorasweep run --config mlruns/sweeps/noisy/config.yaml --corrections check.csv" in out

    with (place / "check.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    in_training = wrong.keys() & set(data.train.text)
    found = [row for row in rows if row["text"] in wrong]
    assert len(found) >= 0.7 * len(in_training)
    assert len(rows) - len(found) <= 0.3 * len(rows)
    assert all(wrong[row["text"]] == row["suggested"] for row in found[:10])

    # Without a training, as all folds are on record; a file that a person may have filled stays.
    assert "exists already" in lorasweep(place, *check, code=2)[1]
    again = face.open("noisy", mlruns=place / "mlruns").check_labels(folds=4, verbose=False)
    assert len(again.suspects) == len(rows)
    lorasweep(place, "report", "noisy")
    assert "Labels to check" in (place / "noisy.html").read_text()

    for row in found:
        row["correct"] = wrong[row["text"]]
    with (place / "filled.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    corrected = ["run", "--config", "mlruns/sweeps/noisy/config.yaml", "--corrections", "filled.csv"]
    out, _ = lorasweep(place, *corrected, "--name", "clean")
    assert f"filled.csv: {len(found)} labels of the training rows corrected" in out
    clean = Dataset.load(SweepFolder(place / "mlruns", "clean").data)
    assert clean.test.text == data.test.text
    assert (clean.test.labels == data.test.labels).all()
    labels = {
        text: clean.label_names[label]
        for text, label in zip(clean.train.text, clean.train.labels, strict=True)
    }
    assert all(labels[row["text"]] == row["correct"] for row in found)
