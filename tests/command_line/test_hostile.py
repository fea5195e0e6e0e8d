"""Names, texts, records and folders that somebody made to do harm."""

from __future__ import annotations

import builtins
import json
import pickle
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from rich.markup import escape
from safetensors.torch import load_file
from small_sweep import finished_sweep
from tiny_adapters import TEXTS, make_folder
from typer.testing import CliRunner

from lorasweep.command_line import main as cli
from lorasweep.search_spaces.space import SearchSpace
from lorasweep.training.data.dataset import Dataset
from lorasweep.training.errors import LorasweepError, ModelError, SettingsError
from lorasweep.training.inference.classifier import load_classifier, predict
from lorasweep.tuning.adapters import ExportFormat
from lorasweep.tuning.adapters.export.sweep import export_sweep
from lorasweep.tuning.record.config import read_config_file
from lorasweep.tuning.record.folder import SweepFolder, find_sweep
from lorasweep.tuning.terminal.console import PlainConsole
from lorasweep.tuning.tracking import interface, store
from lorasweep.tuning.tracking.interface import Interface
from lorasweep.tuning.tracking.models.packing import pack
from lorasweep.tuning.tracking.models.registry import check_name

LABELS = ("<script>alert(1)</script>", '../../x"', "=cmd(),\n{{ 7*7 }}`|")
COLUMNS = ("<img src=x>", "../../y\n```", '"label", {% raw %}')
FILE = 'a"b, <b>\n=1+1.jsonl'


@pytest.fixture(scope="module")
def hostile(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    return finished_sweep(tmp_path_factory.mktemp("hostile"), tiny_base("bert"), LABELS, COLUMNS, FILE)


@pytest.fixture
def folders(tiny_base: Callable[[str], Path], tmp_path: Path) -> dict[str, Path]:
    base = tiny_base("bert")
    adapter = make_folder(base, tmp_path / "in" / "adapter")
    return {"adapter": adapter, "model": make_folder(base, tmp_path / "in" / "model", whole=True)}


def edit(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_hostile_names_are_exported_as_names(
    hostile: SweepFolder, tmp_path: Path, form: ExportFormat
) -> None:
    out = tmp_path / "deep" / 'x"; <b>'
    export_sweep(hostile, out, form=form)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [out.name]
    assert all(path.is_file() for path in out.iterdir())
    card = (out / "README.md").read_text()
    assert str(ModelCard(card)) == card
    body = re.sub(r"^```python\n.*?^```$", "", card.split("---\n", 2)[2], flags=re.M | re.S)
    assert r"\<script\>" in body
    assert not re.search(r"(?<!\\)[<`{]", body.replace("`lorasweep evaluate`", ""))
    assert "49" not in body.split("## Classes")[1].split("## Settings")[0]
    classifier = load_classifier(out, "cpu")
    assert set(classifier.label_names) == set(Dataset.load(hostile.data).label_names)
    pack(out, tmp_path / "packed")


@pytest.mark.parametrize("name", ["../../x", "..", "a/b", "t000\n", "", "/etc", "t\0"])
@pytest.mark.parametrize("file", ["trials/t000.json", "result.json"])
def test_a_record_cannot_lead_out_of_its_folder(
    hostile: SweepFolder, tmp_path: Path, name: str, file: str
) -> None:
    """An id names files that are written and folders that are removed."""
    mlruns = tmp_path / "mlruns"
    shutil.copytree(hostile.mlruns, mlruns)
    folder = SweepFolder(mlruns, hostile.name)
    entries = json.loads((folder.path / file).read_text())
    entries.get("winner", entries)["id"] = name
    (folder.path / file).write_text(json.dumps(entries))
    with pytest.raises(SettingsError, match="not a readable record") as caught:
        export_sweep(folder, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "x\ny"])
def test_names_with_paths_are_refused(hostile: SweepFolder, name: str) -> None:
    for refuse in (lambda: find_sweep(hostile.mlruns, name), lambda: check_name(name)):
        with pytest.raises(SettingsError):
            refuse()
    with pytest.raises(LorasweepError, match="has no trial"):
        export_sweep(hostile, hostile.mlruns / "out", trial=name)


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    text = f"rank: !!python/object/apply:os.mkdir [{tmp_path / 'made'}]\n"
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(SettingsError):
        read_config_file(tmp_path / "sweep.yaml")
    with pytest.raises(SettingsError):
        SearchSpace.from_yaml(text, "mine")
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load(text)
    assert not (tmp_path / "made").exists()


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.mkdir, (self.path,))


@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_a_pickle_is_refused_in_the_weights_place_and_ignored_beside_them(
    folders: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    folder, stem = folders[kind], "adapter_model" if kind == "adapter" else "model"
    before = predict(load_classifier(folder, "cpu"), TEXTS)
    harm = pickle.dumps(Harm(tmp_path / "made"))
    for name in (f"{stem}.bin", "pytorch_model.bin"):
        (folder / name).write_bytes(harm)
    assert (predict(load_classifier(folder, "cpu"), TEXTS) == before).all()
    pack(folder, tmp_path / "packed")
    assert not list((tmp_path / "packed").rglob("*.bin"))
    (folder / f"{stem}.safetensors").unlink()
    for use in (load_classifier, lambda path: pack(path, tmp_path / "other")):
        with pytest.raises(ModelError, match=r"\.bin, a pickle that could run code"):
            use(folder)
    (folder / f"{stem}.safetensors").write_bytes(harm)
    with pytest.raises(ModelError):
        load_classifier(folder)
    served = next((tmp_path / "packed").rglob(f"{stem}.safetensors"))
    served.write_bytes(harm)
    import mlflow

    with pytest.raises(Exception, match=r"(?i)header|safetensors"):
        mlflow.pyfunc.load_model(str(tmp_path / "packed"), suppress_warnings=True)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("shard", ["evil.bin", "../outside.safetensors"])
def test_an_index_leads_to_safetensors_of_the_folder_alone(
    folders: dict[str, Path], tiny_base: Callable[[str], Path], tmp_path: Path, shard: str
) -> None:
    """transformers itself would load both."""
    base = Path(shutil.copytree(tiny_base("bert"), tmp_path / "in" / "base"))
    edit(folders["adapter"] / "adapter_config.json", base_model_name_or_path=str(base))
    pack(folders["model"], tmp_path / "packed")
    served = tmp_path / "packed" / "artifacts" / "adapter"
    for folder in (folders["model"], base, served):
        weights = load_file(folder / "model.safetensors")
        target = folder / shard
        if shard.endswith(".bin"):
            torch.save(weights, target)
        else:
            shutil.copyfile(folder / "model.safetensors", target)
        (folder / "model.safetensors").unlink()
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, shard)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for folder in folders.values():
        with pytest.raises(ModelError, match="no safetensors file beside it"):
            load_classifier(folder)
    import mlflow

    with pytest.raises(Exception, match="no safetensors file beside it"):
        mlflow.pyfunc.load_model(str(tmp_path / "packed"), suppress_warnings=True)


@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_code_in_a_folder_is_not_run_and_nobody_is_asked(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(builtins, "input", lambda *words: asked.append(words) or "y")
    folder, made = folders[kind], tmp_path / "made"
    (folder / "evil.py").write_text(f"open({str(made)!r}, 'w')\nclass Evil: pass\n")
    auto = {"AutoConfig": "evil.Evil", "AutoModelForSequenceClassification": "evil.Evil"}
    edit(folder / "config.json", auto_map=auto, model_type="evil")
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "evil.Evil"]})
    if kind == "model":
        with pytest.raises(ModelError):
            load_classifier(folder)
    else:
        load_classifier(folder)  # only the base model's configuration counts
    assert not asked
    assert not made.exists()


def test_attention_code_from_a_hub_is_refused(
    folders: dict[str, Path], tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_base("bert"), tmp_path / "base"))
    edit(folders["adapter"] / "adapter_config.json", base_model_name_or_path=str(base))
    for folder in (base, folders["model"]):
        edit(folder / "config.json", attn_implementation="somebody/kernel")
    for folder in folders.values():
        with pytest.raises(ModelError, match="asks for attention code from a hub"):
            load_classifier(folder)


def test_control_characters_do_not_reach_the_terminal() -> None:
    console = PlainConsole(force_terminal=True, width=60, highlight=False)
    with console.capture() as captured:
        console.print("[red]" + escape("a\x1b]0;title\x07b\x1b[2Jc\x9bd\re\x00\n\tf") + "[/red]")
    shown = captured.get()
    assert "\x1b[31m" in shown  # the colour that was asked for
    plain = shown.replace("\x1b[31m", "").replace("\x1b[0m", "")
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in plain)
    assert "a?]0;title" in plain


@pytest.mark.parametrize(
    ("arguments", "told"),
    [([], False), (["--host", "::1"], False), (["--host", "0.0.0.0"], True), (["--host", "10.1.2.3"], True)],
)
def test_the_interface_says_when_others_can_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: bool
) -> None:
    """Its server is started elsewhere; here it is only asked for."""
    asked: list[str] = []

    @contextmanager
    def serve(uri: str, mlruns: Path, host: str, port: int) -> Iterator[Interface]:
        asked.append(host)
        served = Interface(f"http://{host}:{port}")
        served.stopped_by = signal.SIGINT
        yield served

    monkeypatch.setattr(interface, "serve", serve)
    monkeypatch.setattr(interface, "choose_port", lambda host, port: 5000)
    monkeypatch.setattr(store, "prepare_store", lambda uri, mlruns: None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    done = CliRunner().invoke(cli.app, ["ui", "--mlruns", str(tmp_path / "mlruns"), *arguments])
    assert done.exit_code == 130, done.output
    assert ("whoever reaches it can read and change the record" in " ".join(done.output.split())) == told
    assert asked == [(arguments or ["", "127.0.0.1"])[1]]
