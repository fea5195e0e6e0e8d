"""The card of an exported folder: what the hub reads of it, and what a person does."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from huggingface_hub.utils import validate_repo_id
from small_sweep import LABELS, copy_sweep, finished_sweep

from lorasweep.search_spaces.space import SearchSpace, load_space
from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.load import load_dataset
from lorasweep.training.model.base_model import MINILM_HUB_ID, resolve_base_model
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.scores.scores import score
from lorasweep.training.settings import DataSettings
from lorasweep.tuning.adapters.card.card import model_card
from lorasweep.tuning.adapters.card.loading import loading_lines
from lorasweep.tuning.record.config import SearchSettings
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.machine import machine
from lorasweep.tuning.record.ran_on import RanOn
from lorasweep.tuning.record.results import Gain, StartReference, SweepResult, TestScores, Winner
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.record.words import escape
from lorasweep.tuning.sweep.winner.winner import write_winner

# What the hub knows of a card's keys, of those that lorasweep may write.
KEYS = {
    *("base_model", "language", "library_name", "license", "metrics", "model-index", "pipeline_tag", "tags"),
}
# The hub refuses a card whose data set type is no such name.
DATASET_TYPE = re.compile(r"(?:[\w-]+/)?[\w.-]+")
BUNDLED = BaseModel("minilm", "/somewhere/model", MINILM_HUB_ID, "bert")


@pytest.fixture(scope="module")
def finished(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    return finished_sweep(tmp_path_factory.mktemp("sweep"), tiny_base("bert"))


@pytest.fixture
def sweep(finished: SweepFolder, tmp_path: Path) -> SweepFolder:
    return copy_sweep(finished, tmp_path / "mlruns")


def card_of(folder: SweepFolder, trial: str = "t000", base: BaseModel | None = None) -> str:
    record = next(entry for entry in folder.trials() if entry.id == trial)
    adapter = record.hyperparameters.method != "full"
    return model_card(
        SweepRecord(folder),
        record,
        Dataset.load(folder.data),
        base or resolve_base_model(folder.config().base_model),
        loading_lines("best", adapter, {}),
    )


def checked_metadata(card: str) -> dict[str, Any]:
    """The card's metadata, held to the hub's rules without asking it."""
    parsed = ModelCard(card)
    entries = yaml.safe_load(card.split("---\n")[1])
    assert str(parsed) == card  # nothing is lost or laid out anew when the hub's library writes it
    assert entries.keys() <= KEYS
    assert entries["library_name"] in ("peft", "transformers")
    assert entries["pipeline_tag"] == "text-classification"
    if "base_model" in entries:
        validate_repo_id(entries["base_model"])
    assert re.fullmatch(r"[a-z0-9.+-]+", entries.get("license", "mit"))
    assert all(isinstance(tag, str) for tag in entries["tags"])
    index = entries.get("model-index", [])
    for model in index:
        assert model.keys() == {"name", "results"}
        (result,) = model["results"]
        assert result["task"]["type"] == "text-classification"
        assert DATASET_TYPE.fullmatch(result["dataset"]["type"])
        assert result["dataset"]["name"]
        assert result["metrics"]
        for metric in result["metrics"]:
            assert isinstance(metric["value"], float)
            assert math.isfinite(metric["value"])
        name, results = model_index_to_eval_results(index)
        assert eval_results_to_model_index(name, results) == index
        assert parsed.data.eval_results == results
    return entries


def test_the_test_scores_are_the_model_index(finished: SweepFolder) -> None:
    card = card_of(finished, base=BUNDLED)
    entries = checked_metadata(card)
    assert entries["base_model"] == MINILM_HUB_ID
    assert entries["license"] == "apache-2.0"  # as published; its folder here has no card
    assert entries["library_name"] == "peft"
    assert entries["tags"] == ["text-classification", "lorasweep", "lora"]
    (model,) = entries["model-index"]
    assert model["name"] == "news_1"
    (result,) = model["results"]
    assert result["dataset"] == {"name": "rows.jsonl", "type": "json", "split": "test"}
    found = {metric["type"]: (metric["value"], metric["name"]) for metric in result["metrics"]}
    assert found == {
        "accuracy": (0.875, "Accuracy"),
        "f1": (0.75, "Macro F1"),
        "loss": (0.5, "Cross entropy (nats)"),
    }


def test_a_trial_that_was_not_scored_has_no_model_index(finished: SweepFolder) -> None:
    card = card_of(finished, "t001")
    entries = checked_metadata(card)
    assert "model-index" not in entries
    assert "metrics" not in entries
    assert entries["library_name"] == "transformers"
    assert "lora" not in entries["tags"]
    assert "not the winner" in card
    assert "| this | test |" not in card
    assert "- It has no test scores, for it was not the sweep's winner." in card


def test_an_earlier_winners_look_at_the_test_split_is_told(sweep: SweepFolder) -> None:
    """Where a sweep was extended and another trial won."""
    result = sweep.result()
    assert result is not None
    look = Winner(id="t001", score=0.5, settings={}, test=TestScores(accuracy=0.5, macro_f1=0.4, loss=1.0))
    sweep.write_result(result.model_copy(update={"also_tested": (look,)}))
    card = card_of(sweep, "t001")
    assert "| this | test | 0.5000 | 0.4000 | 1.0000 |" in card
    assert "not the winner" in card
    assert checked_metadata(card)["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.5


def test_a_score_that_is_no_number_stays_out_of_the_metadata(sweep: SweepFolder) -> None:
    result = sweep.result()
    assert result is not None
    assert result.winner is not None
    test = result.winner.test.model_copy(update={"loss": math.inf})
    path = sweep.path / "result.json"
    entries = json.loads(path.read_text())
    entries["winner"]["test"] = test.model_dump()
    path.write_text(json.dumps(entries))
    metrics = checked_metadata(card_of(sweep))["model-index"][0]["results"][0]["metrics"]
    assert [metric["type"] for metric in metrics] == ["accuracy", "f1"]


def test_a_folder_of_this_machine_is_no_base_model_on_the_hub(finished: SweepFolder) -> None:
    card = card_of(finished)
    assert "base_model" not in checked_metadata(card)
    assert "license" not in checked_metadata(card)
    assert "- name: base\n" in card
    assert "- loaded from: a folder of the machine that trained it" in card
    assert "- licence: not known here; see the base model" in card
    assert str(finished.mlruns.parent) not in card  # whoever reads the card has no use for a path


@pytest.mark.parametrize(
    ("written", "metadata"),
    [("mit", "mit"), ("apache-2.0", "apache-2.0"), ("My own terms", None), ("other", None), ("[mit]", None)],
)
def test_the_licence_is_the_base_models(
    sweep: SweepFolder, tmp_path: Path, written: str, metadata: str | None
) -> None:
    """The hub takes ids of licences alone; the card tells what was written there."""
    base = shutil.copytree(sweep.config().base_model, tmp_path / "base")
    (base / "README.md").write_text(f"---\nlicense: {written}\ntags: [x]\n---\n# A model\n")
    card = card_of(sweep, base=resolve_base_model(str(base)))
    assert checked_metadata(card).get("license") == metadata
    if written[0] != "[":
        assert f"- licence: {written}" in card


def test_it_tells_where_it_comes_from(finished: SweepFolder) -> None:
    body = card_of(finished).split("---\n", 2)[2]
    for expected in (
        "A LoRA adapter for text classification: it sorts texts into 3 classes.",
        "| this | test | 0.8750 | 0.7500 | 0.5000 |",
        "| this, 95 % bootstrap interval | test | 0.7500 to 1.0000 | 0.5000 to 0.8750 | 0.2500 to 0.7500 |",
        "| untuned settings | test | 0.2500 |",
        "| majority class | test | 0.2500 | 0.1250 | 1.5000 |",
        "| learning\\_rate | 0.01 |",
        "- source: rows.jsonl",
        "- text columns: head\\_line, body",
        "- rows: train 144, validation 18, test 18",
        "- licence: not known here; look it up before you pass this on",
        "- search space: lora\\_cpu",
        "- budget: 3 trials of at most 1 pass over the rows\n",
        "- trials: 3 (2 completed, 1 failed)",
        "- this trial: 1:05 with its evaluations",
        "- all 3 trials: 2:10, added up",
        "- the whole sweep: 1:01:40 from start to end",
        "- device: cpu, fp32",
        Dataset.load(finished.data).fingerprint,
    ):
        assert expected in body
    validation = finished.trials()[0].evaluations[0].accuracy
    assert f"| this | validation | {validation:.4f} |" in body


def test_what_judged_the_trials_is_told(sweep: SweepFolder) -> None:
    assert "- sampler: tpe, ASHA\n- validation accuracy of this trial: 0." in card_of(sweep)
    config = sweep.config()
    sweep.write_config(config.model_copy(update={"search": SearchSettings(objective="loss", trials=3)}))
    assert "- sampler: tpe, ASHA; trials judged by loss\n- validation accuracy of" in card_of(sweep)


@pytest.mark.parametrize(
    ("search", "stopped_by", "told"),
    [
        ({"max_minutes": 30}, "time", "trials of at most 2 passes over the rows, in 30 minutes"),
        (
            {"max_minutes": 1.5, "trials": 8}, None,
            "8 trials of at most 2 passes over the rows, in 1.5 minutes at most",
        ),
        (
            {"trials": 8, "patience": 5}, "patience",
            "8 trials of at most 2 passes over the rows, until 5 in a row brought nothing",
        ),
    ],
)  # fmt: skip
def test_the_budget_is_what_was_asked_for(
    sweep: SweepFolder, search: dict[str, Any], stopped_by: str | None, told: str
) -> None:
    """A sweep by minutes alone has a number of trials that nobody has named."""
    config, result = sweep.config(), sweep.result()
    assert result is not None
    training = config.training.model_copy(update={"epochs": 2})
    changed = {"search": SearchSettings.model_validate(search), "training": training}
    sweep.write_config(config.model_copy(update=changed))
    sweep.write_result(result.model_copy(update={"stopped_by": stopped_by}))
    assert f"- budget: {told}\n" in card_of(sweep)


def test_how_the_winner_was_chosen_is_told_of_the_winner(sweep: SweepFolder) -> None:
    """After `--confirm` and `--choose` it is not the best score; another trial was not chosen at all."""
    assert "- chosen by" not in card_of(sweep)  # an older version has not recorded it
    result = sweep.result()
    assert result is not None
    assert result.winner is not None
    rule = "smallest adapter within 0.5 points of the best mean accuracy over 2 other seeds"
    sweep.write_result(result.model_copy(update={"winner": result.winner.model_copy(update={"rule": rule})}))
    score = result.winner.score
    assert f"- chosen by: {rule}\n- validation accuracy of this trial: {score:.4f}\n" in card_of(sweep)
    other = card_of(sweep, "t001")
    assert "- chosen by" not in other
    assert "- validation accuracy of this trial: 0." in other


def test_folders_of_base_models_are_told_without_their_paths(sweep: SweepFolder) -> None:
    """A card goes to the hub. Folders of one name are no mistake there."""
    folders = ["/home/alice/models/x", "/home/alice/more/x", "google-bert/bert-base-uncased"]
    for trial in sweep.trials():
        chosen = trial.hyperparameters.model_copy(update={"base_model": folders[0]})
        searched = ("base_model", "rank")
        sweep.write_trial(trial.model_copy(update={"hyperparameters": chosen, "searched": searched}))
    space = {"base_model": {"choice": folders}, "rank": {"choice": [2, 4]}}
    start = {"base_model": folders[0], "rank": 2}
    sweep.write_space(SearchSpace.from_dict(space | {"starts": [start]}))
    card = card_of(sweep)
    assert "alice" not in card
    assert "- range of base\\_model: x, x, google-bert/bert-base-uncased\n" in card
    assert "- range of rank: 2, 4\n" in card
    assert "| base\\_model | x |\n" in card


def test_the_searched_ranges_are_told(sweep: SweepFolder) -> None:
    assert "range of" not in card_of(sweep)
    sweep.write_space(load_space("lora_cpu"))
    card = card_of(sweep)
    described = dict(load_space("lora_cpu").describe())
    assert f"- range of rank: {escape(described['rank'])}\n" in card
    assert f"- range of learning\\_rate: {escape(described['learning_rate'])}\n" in card
    assert "range of alpha" not in card  # in the space, and not among what this trial's record calls searched
    (sweep.path / "space.yaml").unlink()
    (sweep.path / "space.py").write_text("raise RuntimeError('run')")
    assert "range of" not in card_of(sweep)


def test_an_adapter_of_twice_the_rank_says_why(sweep: SweepFolder) -> None:
    assert "twice the ranks" not in card_of(sweep)
    for record in sweep.trials():
        chosen = record.hyperparameters.model_copy(update={"init": "pissa"})
        sweep.write_trial(record.model_copy(update={"hyperparameters": chosen}))
    assert "| init | pissa |" in card_of(sweep)
    assert "it has twice the ranks above, on the unchanged base model." in card_of(sweep)
    assert "twice the ranks" not in card_of(sweep, "t001")  # full fine-tuning


def test_its_tables_are_whole(finished: SweepFolder) -> None:
    """Every row of a table has as many cells as its head, and no blank line parts them."""
    for trial in ("t000", "t001"):
        blocks = re.findall(r"(?:^\|.*\n)+", card_of(finished, trial), flags=re.M)
        heads = [block.splitlines()[0] for block in blocks]
        assert len(blocks) == 3
        assert ["| model |" in heads[0], "| class |" in heads[1], "| setting |" in heads[2]] == [True] * 3
        for block in blocks:
            cells = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(cells) == 1
            assert len(block.splitlines()) > 2


@pytest.mark.parametrize("adapter", [True, False])
def test_it_loads_in_five_lines(adapter: bool) -> None:
    arguments = {"dtype": "float32", "ignore_mismatched_sizes": True} if adapter else {}
    lines = loading_lines('a "b"\nc', adapter, arguments)
    assert len(lines.splitlines()) <= 5
    compile(lines, "card", "exec")


def test_the_machine_of_the_training_is_told(sweep: SweepFolder) -> None:
    """The one on record, not the one that exports."""
    here = machine()
    assert here["cores"] >= 1
    assert here["cpu"]
    assert here["packages"]["torch"]
    assert "hardware: not recorded when the sweep ran" in card_of(sweep)
    assert "Versions at the export: " in card_of(sweep)
    there = {
        "cpu": "Some CPU *9000*",
        "cores": 48,
        "memory_bytes": 64 * 2**30,
        "gpus": ["Fast GPU", "Fast GPU"],
        "os": "Linux 6.1 x86_64",
        "python": "3.11.9",
        "cuda": "13.0",
        "packages": {"torch": "2.0.0"},
    }
    resources = {"cpus": 48, "gpus": 2.0, "cpus_per_trial": 4, "gpus_per_trial": 0.5, "concurrency": 4}
    sweep.write_plan(sweep.plan() | {"machine": there, "resources": resources})
    card = card_of(sweep)
    for expected in (
        r"- processor: Some CPU \*9000\*, 48 cores used",
        "- memory: 64 GiB",
        "- GPUs: 2 × Fast GPU",
        "- a trial had: 0.5 GPU and 4 cores; 4 at once",
        r"- system: Linux 6.1 x86\_64, Python 3.11.9, CUDA 13.0",
        "Versions of the training: torch 2.0.0.",
    ):
        assert expected in card
    for damage in (None, [], {"gpus": "none", "packages": 3}, "text"):
        sweep.write_plan(sweep.plan() | {"machine": damage, "resources": damage})
        checked_metadata(card_of(sweep))


def test_a_trial_of_a_cluster_is_told_with_its_own_machine(sweep: SweepFolder) -> None:
    """Not the driver's. On one machine all that the plan knows of it stays, with the trial's own precision."""
    there = {"cpu": "Drivers CPU", "cores": 2, "os": "Linux 5", "packages": {"torch": "2.0.0"}}
    sweep.write_plan(sweep.plan() | {"machine": there})
    ran = RanOn(
        node="gpu-1 (10.0.0.7)",
        device="cuda",
        gpu="NVIDIA L4",
        processor="Xeon",
        precision="bf16",
        system="Linux 6",
        python="3.12.1",
        cuda="13.0",
        packages={"torch": "2.13.0"},
    )
    trial = sweep.trials()[0]
    sweep.write_trial(trial.model_copy(update={"best_ran_on": ran, "ran_on": RanOn(processor="Later")}))
    own = ("- device: NVIDIA L4, bf16", "- processor: Xeon", "- system: Linux 6, Python 3.12.1, CUDA 13.0")
    card = card_of(sweep)
    assert all(f"{line}\n" in card for line in (own[0], f"{own[1]}, 2 cores used", own[2]))
    config = sweep.config()
    cluster = config.resources.model_copy(update={"address": "head:6379"})
    sweep.write_config(config.model_copy(update={"resources": cluster}))
    card = card_of(sweep)
    assert all(f"{line}\n" in card for line in (*own, "- GPUs: 1 × NVIDIA L4"))
    assert "Versions of the training: torch 2.13.0." in card
    assert not any(word in card for word in ("Drivers", "Later", "gpu-1", "10.0.0.7", "cores used"))


def test_classes_and_their_scores_are_counted(sweep: SweepFolder) -> None:
    """18 test rows, 6 of each class; the last class is never answered."""
    assert "| class | training rows | validation rows | test rows |\n" in card_of(sweep)
    data = Dataset.load(sweep.data)
    true = data.test.labels
    answers = np.where(true == 2, 0, true)
    logits = np.eye(3, dtype=np.float32)[answers] * 4
    write_winner(sweep.winner, {"weights/config.json": b"{}"}, logits)
    # Scores of other predictions: they are not this winner's.
    assert "| class | training rows | validation rows | test rows |\n" in card_of(sweep)
    result = sweep.result()
    assert result is not None
    assert result.winner is not None
    scores = score(logits, true)
    test = TestScores(accuracy=scores.accuracy, macro_f1=scores.macro_f1, loss=scores.loss)
    winner = result.winner.model_copy(update={"test": test})
    better = TestScores(accuracy=0.7, macro_f1=0.1, loss=1.0)
    sweep.write_result(result.model_copy(update={"winner": winner, "baselines": {"a line": better}}))
    card = card_of(sweep)
    assert "| class | training rows | validation rows | test rows | precision | recall | F1 |\n" in card
    names = data.label_names
    escaped = [r"\<b\>health\</b\>", r"arts \| \*film\*", r"\{\{ money \}\}: \#1"]
    shown = dict(zip(LABELS, escaped, strict=True))
    assert f"| {shown[names[0]]} | 48 | 6 | 6 | 0.50 | 1.00 | 0.67 |" in card
    assert f"| {shown[names[2]]} | 48 | 6 | 6 | 0.00 | 0.00 | 0.00 |" in card
    assert f"F1 is below 0.5 for 1 of 3 classes: {shown[names[2]]} (0.00)." in card
    assert f"fewer than 20 test rows may be luck: {shown[names[0]]} (6)" in card
    assert "on the same test rows a line reached accuracy 0.7000 against 0.6667." in card
    (sweep.winner / "test.safetensors").write_bytes(b"broken")
    assert "| class | training rows | validation rows | test rows |\n" in card_of(sweep)


def test_what_it_was_not_trained_for(sweep: SweepFolder) -> None:
    card = card_of(sweep)
    for expected in (
        "- Texts unlike the columns head\\_line and body of rows.jsonl were not measured: other languages",
        "- Texts that belong to none of its 3 classes",
        "- Text beyond the first 16 tokens is not read.",
    ):
        assert expected in card
    assert "left out" not in card
    assert "Something simpler" not in card  # the baseline is worse in both scores
    assert "No real use" not in card
    path = sweep.data / "data.json"
    facts = json.loads(path.read_text())
    facts |= {"left_out_classes": {"*rare*": 3}, "dropped": {"no text": 2}}
    path.write_text(json.dumps(facts))
    card = card_of(sweep)
    assert "which were left out, get another class's label: \\*rare\\* (3)." in card
    assert "- rows left out: no text 2" in card


def test_the_sample_makes_a_demonstration(sweep: SweepFolder) -> None:
    data = load_dataset(DataSettings(max_train_rows=50, max_validation_rows=50), seed=0)
    shutil.rmtree(sweep.data)
    data.save(sweep.data)
    config = sweep.config()
    # A user's file of the sample's name is still a user's file.
    assert "demonstration" not in card_of(sweep)
    sweep.write_config(config.model_copy(update={"data": DataSettings()}))
    card = card_of(sweep, base=BUNDLED)
    assert "**A demonstration, not a tool: its training texts are made up.**" in card
    assert "- **No real use.**" in card
    assert "- licence: that of lorasweep" in card
    entries = checked_metadata(card)
    assert entries["language"] == "en"
    assert entries["model-index"][0]["results"][0]["dataset"] == {
        "name": "sample news (made up)",
        "type": "lorasweep-sample-news",
        "split": "test",
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("News.csv.gz", "csv"),
        ("a b.tsv", "csv"),
        ("rows.parquet", "parquet"),
        ("train.jsonl + test.csv", "json"),
        ("all.zip", "local-file"),
        ("../../x\n---\nlicense: mit\n---.csv", "csv"),
        ('"quoted", <script>alert(1)</script>: #.json', "json"),
    ],
)
def test_a_file_of_any_name_keeps_the_metadata_valid(sweep: SweepFolder, source: str, expected: str) -> None:
    path = sweep.data / "data.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source": source}))
    card = card_of(sweep)
    (result,) = checked_metadata(card)["model-index"][0]["results"]
    assert result["dataset"]["type"] == expected
    assert result["dataset"]["name"] == " ".join(source.split())
    assert "<script>" not in card.split("---\n", 2)[2]


def test_groups_that_stayed_together_are_told(sweep: SweepFolder) -> None:
    assert "split by group" not in card_of(sweep)
    path = sweep.data / "data.json"
    groups = {"group_column": "<b>author", "groups": {"train": 3, "validation": 1, "test": 1}}
    path.write_text(json.dumps(json.loads(path.read_text()) | groups))
    assert "- split by group: each \\<b\\>author in one split\n" in card_of(sweep)


def test_a_sweep_without_a_result_still_has_a_card(sweep: SweepFolder) -> None:
    """As it is asked for while a trial of an interrupted sweep is exported."""
    (sweep.path / "result.json").unlink()
    (sweep.path / "plan.json").unlink()
    checked_metadata(card_of(sweep))
    sweep.write_result(SweepResult(state="failed", metric="loss"))
    checked_metadata(card_of(sweep))


def test_what_the_search_added_is_told(sweep: SweepFolder) -> None:
    """Beside the start's scores, and of the winner alone."""
    result = sweep.result()
    assert result is not None
    assert result.winner is not None
    body = card_of(sweep)
    assert "known-good" not in body
    assert escape("Tuning adds +62.5 points of accuracy to the untuned default.") + "\n" in body
    start = StartReference(
        id="t001", hyperparameters=result.winner.hyperparameters, score=0.5, test=result.winner.test
    )
    gain = Gain(difference=0.0, interval=(-0.02, 0.02))
    sweep.write_result(result.model_copy(update={"start": start, "over_start": gain}))
    body = card_of(sweep)
    assert "| known-good start t001 | test | 0.8750 | 0.7500 | 0.5000 |" in body
    assert escape("The search found nothing better than its start, t001: +0.0 points of accuracy") in body
    assert "Tuning adds" not in card_of(sweep, "t001")
