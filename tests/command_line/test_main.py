"""The command line: what is refused, in one line and with nothing written, and verbs that need no sweep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from _pytest.capture import CaptureResult

from lorasweep.command_line import main as cli
from lorasweep.search_spaces.space import SHIPPED, SearchSpace, load_space
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import SweepResult
from lorasweep.tuning.record.trial_records import TrialRecord
from lorasweep.tuning.trials.head import LostClusterError

WORDS = {
    "money": "markets shares bank rally",
    "film": "film star album award",
    "health": "vaccine doctors trial",
}
Command = Callable[..., tuple[int, CaptureResult[str]]]


def rows(count: int = 60, labels: tuple[str, ...] = ("money", "film", "health")) -> list[tuple[str, str]]:
    """Distinct texts with labels in turn."""
    return [
        (f"{' '.join(WORDS[label].split()[: 1 + number % 3])} {number}", label)
        for number, label in ((number, labels[number % len(labels)]) for number in range(count))
    ]


def write_csv(path: Path, header: str = "text,label", **options: object) -> str:
    lines = [",".join(row) for row in rows(**options)]  # type: ignore[arg-type]
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a good table `rows.csv` in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "LORASWEEP_MLRUNS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    write_csv(tmp_path / "rows.csv")
    return tmp_path


@pytest.fixture
def command(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tiny_base: Callable[[str], Path],
) -> Command:
    """Run the real entry point in this process: its exit code and what it printed.

    `@tiny` stands for the folder of a small base model.
    """

    def run(*arguments: str) -> tuple[int, CaptureResult[str]]:
        given = [str(tiny_base("bert")) if argument == "@tiny" else argument for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["lorasweep", *given])
        capfd.readouterr()
        try:
            cli.main()
        except SystemExit as ended:
            return (ended.code if isinstance(ended.code, int) else 0), capfd.readouterr()
        return 0, capfd.readouterr()

    return run


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path under a folder, with the content of the files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(command: Command, place: Path, arguments: list[str], words: list[str]) -> str:
    """Assert exit code 2, one line that holds `words`, and no change on the disk."""
    before = tree(place)
    code, printed = command(*arguments)
    assert code == 2, printed
    lines = printed.err.splitlines()
    assert len(lines) == 1, printed.err
    assert lines[0].startswith("lorasweep: ")
    assert [word for word in words if word not in lines[0]] == [], lines[0]
    assert "Traceback" not in printed.out + printed.err
    assert tree(place) == before
    return lines[0]


def bad_json(path: Path, bad: int) -> None:
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows()]
    for number in range(bad):
        lines[6 + number] = '{"text": "cut off'
    path.write_text("\n".join(lines))


DATA_CASES: dict[str, tuple[Callable[[Path], object], list[str], list[str]]] = {
    "no such file": (lambda place: None, ["--data", "gone.csv"], ["gone.csv", "no such file", "check"]),
    "a folder": (
        lambda place: (place / "news.csv").mkdir(),
        ["--data", "news.csv"],
        ["news.csv", "is a folder", "name one file"],
    ),
    "an empty file": (
        lambda place: (place / "none.csv").touch(),
        ["--data", "none.csv"],
        ["none.csv", "empty", "download"],
    ),
    "not the format it claims": (
        lambda place: (place / "rows.parquet").write_text("text,label\na,b\n"),
        ["--data", "rows.parquet"],
        ["rows.parquet", "not a readable Parquet file", "again"],
    ),
    "not the packing it claims": (
        lambda place: (place / "rows.csv.gz").write_text("text,label\na,b\n"),
        ["--data", "rows.csv.gz"],
        ["rows.csv.gz", "not a complete", "again"],
    ),
    "a zip without a table": (
        lambda place: zipfile.ZipFile(place / "rows.zip", "w").writestr("readme.md", "x"),
        ["--data", "rows.zip"],
        ["rows.zip", "no table", "readme.md", "name one file"],
    ),
    "no known suffix": (
        lambda place: (place / "rows.docx").write_text("x"),
        ["--data", "rows.docx"],
        ["rows.docx", ".docx", ".csv", "convert"],
    ),
    "too many lines that do not parse": (
        lambda place: bad_json(place / "rows.jsonl", bad=4),
        ["--data", "rows.jsonl"],
        ["rows.jsonl", "line 7", "4 of 60", "5%"],
    ),
    "a missing column": (
        lambda place: None,
        ["--data", "rows.csv", "--text", "headline"],
        ["rows.csv", "'headline'", "--text", "columns present", "text", "label"],
    ),
    "an empty column": (
        lambda place: (place / "rows.csv").write_text("text,label\n" + "market shares,\n" * 20),
        ["--data", "rows.csv"],
        ["rows.csv", "'label'", "empty in every row", "--label"],
    ),
    "no column recognised": (
        lambda place: write_csv(place / "rows.csv", header="a,b"),
        ["--data", "rows.csv"],
        ["rows.csv", "--text", "columns present", "a", "b"],
    ),
    "one class": (
        lambda place: write_csv(place / "rows.csv", labels=("film",)),
        ["--data", "rows.csv"],
        ["only label", "film", "at least two classes"],
    ),
    "labels missing in a split": (
        lambda place: write_csv(place / "test.csv", labels=("money", "film")),
        ["--data", "rows.csv", "--test", "test.csv"],
        ["test split", "health", "add rows"],
    ),
    "a name not allowed in a split column": (
        lambda place: (place / "rows.csv").write_text("text,label,part\nbank,a,train\nfilm,b,holdout\n"),
        ["--data", "rows.csv", "--split-column", "part"],
        ["rows.csv", "row 2", "'part'", "holdout", "validation"],
    ),
}


@pytest.mark.parametrize("case", DATA_CASES)
def test_bad_data_is_refused(case: str, command: Command, place: Path) -> None:
    prepare, arguments, words = DATA_CASES[case]
    prepare(place)
    refused(command, place, ["run", "--base-model", "@tiny", *arguments], words)


def space(text: str) -> Callable[[Path], object]:
    return lambda place: (place / "mine.yaml").write_text(text)


ABOUT = "about: mine\n"
SETTINGS_CASES: dict[str, tuple[Callable[[Path], object], list[str], list[str]]] = {
    "a model neither cached nor reachable": (
        lambda place: None,
        ["--base-model", "nobody-here/no-such-model"],
        ["nobody-here/no-such-model", "neither in the local cache nor reachable", "minilm"],
    ),
    "a folder that is no model": (
        lambda place: (place / "model").mkdir(),
        ["--base-model", "./model"],
        ["model", "config.json"],
    ),
    "a pattern that matches nothing": (
        space(ABOUT + "rank: {choice: [4, 8]}\ntarget_modules: no.such.layer\n"),
        ["--space", "mine.yaml"],
        ["no.such.layer", "matches"],
    ),
    "an unknown hyperparameter": (
        space(ABOUT + "rnak: {choice: [4, 8]}\n"),
        ["--space", "mine.yaml"],
        ["mine.yaml", "rnak", "not a hyperparameter", "rank"],
    ),
    "an empty range": (
        space(ABOUT + "learning_rate: {loguniform: [0.5, 0.25]}\n"),
        ["--space", "mine.yaml"],
        ["mine.yaml", "learning_rate", "0.5", "0.25", "empty"],
    ),
    "a wrong type": (
        space(ABOUT + "rank: {choice: [four, 8]}\n"),
        ["--space", "mine.yaml"],
        ["mine.yaml", "rank", "four"],
    ),
    "a space that is not YAML": (
        space(ABOUT + "rank: {choice: [4, 8\n"),
        ["--space", "mine.yaml"],
        ["mine.yaml", "not valid YAML", "line"],
    ),
    "an unknown space": (
        lambda place: None,
        ["--space", "lora_brt"],
        ["'lora_brt'", "lora_bert", "quickstart", "YAML file"],
    ),
    "a space function that fails": (
        lambda place: (place / "mine.py").write_text("def space(trial):\n    return trial.nothing\n"),
        ["--space", "mine.py:space"],
        ["mine.py", "line 2", "nothing"],
    ),
    "more GPUs a trial than there are": (
        lambda place: None,
        ["--gpus-per-trial", "64"],
        ["--gpus-per-trial 64", "GPUs", "ask for at most that"],
    ),
    "more cores a trial than there are": (
        lambda place: None,
        ["--cpus-per-trial", "4096"],
        ["--cpus-per-trial 4096", "cores", "ask for at most that"],
    ),
    "no cluster at the address": (
        lambda place: None,
        ["--address", "127.0.0.1:1"],
        ["--address 127.0.0.1:1", "no Ray cluster", "ray start --head"],
    ),
    "a number out of range": (lambda place: None, ["--trials", "0"], ["--trials 0: use 1 or more"]),
    "a word not allowed": (
        lambda place: None,
        ["--metric", "f1"],
        ["lorasweep: --metric f1: use accuracy, macro_f1, loss, balanced_accuracy, "],
    ),
    "a threshold that is neither a rule nor a number": (
        lambda place: None,
        ["--threshold", "half"],
        [
            "lorasweep: --threshold half: use f1, balanced_accuracy, mcc, f0.5, f2, none, or a number between 0 and 1"
        ],
    ),
    "a word not allowed in the file": (
        lambda place: (place / "sweep.yaml").write_text("training: {metric: f1}\n"),
        ["--config", "sweep.yaml"],
        ["sweep.yaml: training.metric: 'f1': use accuracy, macro_f1, loss, balanced_accuracy, "],
    ),
    "a name for what is not to be registered": (
        lambda place: None,
        ["--no-register", "--register", "all news"],
        ["--no-register --register 'all news'", "leave out the name"],
    ),
    "more trials at once than cores": (
        lambda place: None,
        ["--concurrency", "4096", "--trials", "4000"],
        ["--concurrency 4096: each trial needs a core"],
    ),
    "a confirmation that is not KxS": (
        lambda place: None,
        ["--confirm", "3"],
        ["--confirm 3: ", "3x3"],
    ),
    "an unknown rule for the winner": (
        lambda place: None,
        ["--choose", "tiny"],
        ["--choose tiny: ", "smallest"],
    ),
    "a warm start from nowhere": (lambda place: None, ["--warm-start", "gone"], ["no sweeps in", "mlruns"]),
    "a name that is no folder": (lambda place: None, ["--name", "../up"], ["--name ../up: ", "letters"]),
    "an unknown setting in the file": (
        lambda place: (place / "sweep.yaml").write_text("search: {trails: 4}\n"),
        ["--config", "sweep.yaml"],
        ["sweep.yaml: search.trails: no such setting"],
    ),
    "a settings file that is not YAML": (
        lambda place: (place / "sweep.yaml").write_text("search: {\n  trials: [\n"),
        ["--config", "sweep.yaml"],
        ["--config sweep.yaml line 3", "not valid YAML"],
    ),
    "a setting that stands twice in the file": (
        lambda place: (place / "sweep.yaml").write_text("name: a\nname: b\n"),
        ["--config", "sweep.yaml"],
        ["--config sweep.yaml line 2", "name stands twice (first on line 1)"],
    ),
    "a tracking store that is none": (
        lambda place: None,
        ["--tracking-uri", "gopher://here"],
        ["gopher://here"],
    ),
}


@pytest.mark.parametrize("case", SETTINGS_CASES)
def test_bad_settings_are_refused(case: str, command: Command, place: Path) -> None:
    prepare, arguments, words = SETTINGS_CASES[case]
    prepare(place)
    base = [] if "--base-model" in arguments else ["--base-model", "@tiny"]
    refused(command, place, ["run", "--data", "rows.csv", *base, *arguments], words)


@pytest.fixture
def known(place: Path) -> SweepFolder:
    """A sweep in `mlruns` that was interrupted before its first trial."""
    folder = SweepFolder(place / "mlruns", "known")
    folder.create(SweepConfig(name="known"))
    return folder


def test_a_name_in_use_is_refused(command: Command, place: Path, known: SweepFolder) -> None:
    arguments = ["run", "--data", "rows.csv", "--base-model", "@tiny", "--name", "known"]
    refused(command, place, arguments, ["known", "in use", "--name", "lorasweep resume known"])


@pytest.mark.parametrize(
    "verb",
    [["status"], ["resume"], ["publish"], ["report"], ["register"], ["export", "--out", "best"]],
    ids=lambda verb: verb[0],
)
def test_an_unknown_name_is_refused(
    verb: list[str], command: Command, place: Path, known: SweepFolder
) -> None:
    refused(command, place, [*verb, "strange"], ["strange", "not known", "mlruns", "there are: known"])


def test_an_export_without_sweeps_is_refused(command: Command, place: Path) -> None:
    refused(command, place, ["export", "--out", "best"], ["no sweeps in mlruns", "lorasweep run"])


def test_an_export_of_an_unfinished_sweep_is_refused(
    command: Command, place: Path, known: SweepFolder
) -> None:
    refused(command, place, ["export", "--out", "best"], ["known", "no winner"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--public"], ["--public", "--push-to-hub"]),
        (["--push-to-hub", "no name"], ["--push-to-hub", "'no name'", "ACCOUNT/NAME"]),
        (["--push-to-hub", "me/news"], ["--push-to-hub me/news", "no token", "hf auth login", "HF_TOKEN"]),
    ],
)
def test_an_export_that_cannot_be_is_refused_before_it_begins(
    more: list[str], words: list[str], command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(place / "no-token"))
    refused(command, place, ["export", "--out", "best", *more], words)


def test_an_onnx_model_is_not_for_predict(command: Command, place: Path) -> None:
    (place / "best").mkdir()
    (place / "best" / "model.onnx").write_bytes(b"model")
    (place / "best" / "config.json").write_text('{"id2label": {"0": "a", "1": "b"}}')
    for verb in (["predict", "markets rally"], ["evaluate", "--data", "rows.csv"]):
        refused(command, place, [*verb, "--adapter", "best"], ["best", "an ONNX model", "--format adapter"])


@pytest.mark.parametrize(
    "inside", [{}, {"adapter_config.json": "{"}, {"config.json": '{"model_type": "bert"}'}]
)
def test_a_foreign_adapter_folder_is_refused(inside: dict[str, str], command: Command, place: Path) -> None:
    folder = place / "adapter"
    folder.mkdir()
    for name, text in inside.items():
        (folder / name).write_text(text)
    refused(command, place, ["predict", "--adapter", "adapter", "markets rally"], ["adapter", "export"])


def test_an_adapter_that_is_not_there_is_refused(command: Command, place: Path) -> None:
    refused(command, place, ["predict", "--adapter", "gone", "markets rally"], ["gone"])


@pytest.mark.parametrize("out", [[], ["--out", "labels.csv"]])
def test_a_broken_line_is_named_before_a_model_is_loaded(
    out: list[str], command: Command, place: Path
) -> None:
    (place / "rows.jsonl").write_text('{"text": "markets rally"}\n{"text": \n')
    arguments = ["predict", "--adapter", "gone", "--file", "rows.jsonl", *out]
    refused(command, place, arguments, ["rows.jsonl, line 2", "1 of 2 rows"])


def test_an_unwritable_mlruns_is_refused(command: Command, place: Path) -> None:
    # A file where the folder would be: refused to every user, also to root.
    (place / "records").write_text("mine")
    arguments = ["run", "--data", "rows.csv", "--base-model", "@tiny", "--mlruns", "records"]
    refused(command, place, arguments, ["records", "--mlruns"])


def test_an_mlruns_without_rights_is_refused(command: Command, place: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (place / "records").mkdir(mode=0o555)
    arguments = ["run", "--data", "rows.csv", "--base-model", "@tiny", "--mlruns", "records"]
    refused(command, place, arguments, ["records", "--mlruns"])


def test_a_few_bad_lines_are_told_and_a_dry_run_writes_nothing(command: Command, place: Path) -> None:
    bad_json(place / "rows.jsonl", bad=2)
    before = tree(place)
    code, printed = command(
        "run", "--data", "rows.jsonl", "--base-model", "@tiny", "--dry-run", "--trials", "9"
    )
    assert (code, printed.err) == (0, "")
    assert "2 " in next(line for line in printed.out.splitlines() if "dropped" in line)
    assert "all-linear" not in printed.out
    assert "nothing was trained; --verbose shows more" in printed.out
    assert tree(place) == before
    code, printed = command(
        "run", "--data", "rows.jsonl", "--base-model", "@tiny", "--dry-run", "--trials", "9", "--verbose"
    )
    assert code == 0
    assert "all-linear: 12 modules" in printed.out
    assert printed.out.endswith("nothing was trained\n")


def test_a_dry_run_notes_what_is_odd_in_the_data(command: Command, place: Path) -> None:
    lines = (place / "rows.csv").read_text().replace("vaccine", "🦜 🦜").splitlines()
    lines[1::9] = [line.replace(",money", ",Money") for line in lines[1::9]]
    (place / "odd.csv").write_text("\n".join(lines).replace(",", ";"))
    arguments = ["run", "--data", "odd.csv", "--delimiter", ";", "--base-model", "@tiny", "--dry-run"]
    code, printed = command(*arguments)
    assert (code, printed.err) == (0, "")
    shown = " ".join(printed.out.split())
    assert (
        "note labels that look alike are classes of their own: 'Money' (7 rows) and 'money' (13 rows)"
        in shown
    )
    assert "note the validation split has 6 rows: one of them is 16.7 points of accuracy" in shown
    assert "% of the tokens are unknown to this model's tokenizer" in shown


def test_status_of_an_empty_folder(command: Command, place: Path) -> None:
    code, printed = command("status", "--json")
    assert (code, json.loads(printed.out)) == (0, [])
    assert tree(place).keys() == {"rows.csv"}
    code, printed = command("status")
    assert code == 0
    assert "no sweeps in mlruns" in printed.out


def test_status_lists_sweeps(command: Command, known: SweepFolder) -> None:
    code, printed = command("status", "--json")
    [listed] = json.loads(printed.out)
    assert (code, listed["name"], listed["state"], listed["ended"]) == (0, "known", "interrupted", None)
    code, printed = command("status", "known", "--all")
    assert code == 0
    assert "\n\n# go on where it stopped\nlorasweep resume known\n" in printed.out


def test_the_file_of_an_earlier_sweep_makes_a_new_one(
    command: Command, place: Path, known: SweepFolder
) -> None:
    """The name in it is that sweep's; a name that is asked for is another matter."""
    file = str(known.path / "config.yaml")
    arguments = ["run", "--config", file, "--data", "rows.csv", "--base-model", "@tiny", "--max-length", "64"]
    code, printed = command(*arguments, "--dry-run")
    assert (code, printed.err) == (0, "")
    assert "known-1\n" in printed.out
    refused(command, place, [*arguments, "--name", "known"], ["known", "in use"])


def test_spaces_are_listed_and_shown_as_files_that_load(command: Command, place: Path) -> None:
    code, printed = command("spaces")
    assert code == 0
    assert all(name in printed.out for name in ("quickstart", "lora_bert", "lora_cpu"))
    assert "starts: rate 5e-5" in printed.out
    code, printed = command("spaces", "lora_cpu")
    assert code == 0
    assert printed.out == (SHIPPED / "lora_cpu.yaml").read_text()
    assert "# " in printed.out
    (place / "mine.yaml").write_text(printed.out)
    code, shown = command("spaces", "mine.yaml")
    assert (code, shown.out) == (0, printed.out)
    refused(command, place, ["spaces", "lora"], ["'lora'", "lora_cpu"])


def test_the_next_space_is_printed_as_a_file(command: Command, place: Path, known: SweepFolder) -> None:
    """YAML alone, which is searched as it is; and `status` names the command."""
    space = load_space("lora_cpu")
    known.write_space(space)
    refused(
        command,
        place,
        ["spaces", "--next", "known"],
        ["known", "no trial has a score", "lorasweep resume known"],
    )
    refused(command, place, ["spaces", "--next", "strange"], ["strange", "there are: known"])
    refused(
        command, place, ["spaces", "lora_cpu", "--next", "known"], ["--next known", "leave out 'lora_cpu'"]
    )
    chosen = Hyperparameters(rank=8, learning_rate=2e-3)
    known.write_trial(TrialRecord(id="t000", number=0, state="completed", hyperparameters=chosen, score=0.5))
    code, printed = command("spaces", "--next", "known")
    assert (code, printed.err) == (0, "")
    (place / "next.yaml").write_text(printed.out)
    following = load_space("next.yaml")
    assert isinstance(following, SearchSpace)
    assert following.start_points()[0]["rank"] == 8
    assert printed.out.startswith("# The next search after sweep known: 1 trial with a score")
    code, printed = command(
        "run", "--data", "rows.csv", "--base-model", "@tiny", "--space", "next.yaml", "--dry-run"
    )
    assert (code, printed.err) == (0, "")
    known.write_result(SweepResult(state="finished", metric="accuracy"))
    _, printed = command("status", "known")
    assert "lorasweep spaces --next known > next.yaml" in printed.out.splitlines()
    (known.path / "space.yaml").rename(known.path / "space.py")
    _, printed = command("status", "known")
    assert "--next" not in printed.out
    refused(command, place, ["spaces", "--next", "known"], ["searched a Python function"])


def test_the_version_and_a_short_help(command: Command) -> None:
    code, printed = command("--version")
    assert (code, printed.out) == (0, f"lorasweep {version('lorasweep')}\n")
    assert command("run", "-h")[0] == 0


def test_help_imports_nothing_heavy() -> None:
    heavy = {"ray", "torch", "mlflow", "transformers", "peft", "pandas", "numpy"}
    code = (
        "import sys; sys.argv[1:] = ['run', '--help']\n"
        "from lorasweep.command_line.main import main\n"
        "try: main()\n"
        f"finally: print('SLOW', {heavy} & set(sys.modules))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"COLUMNS": "100"}
    )
    assert ended.returncode == 0, ended.stderr
    assert "--gpus-per-trial" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "SLOW set()"


def test_python_m_tuning_is_the_same_command(place: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "lorasweep", "status", "gone"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2])},
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "lorasweep: no sweeps in mlruns: start one with: lorasweep run\n"


def test_a_lost_cluster_ends_the_process_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray's own exit would wait for the head, and then end the process in its way."""

    def lose() -> None:
        raise LostClusterError("the head is gone")

    codes: list[int] = []
    monkeypatch.setattr(cli, "app", lose)
    monkeypatch.setattr(os, "_exit", codes.append)
    with pytest.raises(SystemExit):
        cli.main()
    assert codes == [2]
    assert capsys.readouterr().err == "lorasweep: the head is gone\n"
