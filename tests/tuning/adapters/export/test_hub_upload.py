"""A folder uploaded to a hub of this machine's own, and the refusals, each in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from exported_adapters import export_adapter
from huggingface_hub import ModelCard, constants
from local_hub import Hub, serve

from lorasweep.training.errors import ExportError, LorasweepError, SettingsError
from lorasweep.training.inference.classifier import load_classifier
from lorasweep.tuning.adapters.card.loading import loading_lines, onnx_lines
from lorasweep.tuning.adapters.export.hub_upload import check_upload, push_folder
from lorasweep.tuning.adapters.export.merged import write_merged

TOKEN = "hf_made_up_and_never_shown"
REPO = "someone/news"


def connect(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as hub:
        connect(monkeypatch, hub.address)
        yield hub


@pytest.fixture(scope="module")
def exported(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter whose base model goes by a name on the hub too, and the whole model made from it."""
    root = tmp_path_factory.mktemp("exported")
    adapter = export_adapter(tiny_base("bert"), root / "adapter")
    config = json.loads((adapter / "config.json").read_text())
    config["lorasweep"] |= {"base_model": "minilm", "base_hub_id": "someone/base"}
    (adapter / "config.json").write_text(json.dumps(config))
    lines = loading_lines("adapter", True, {})
    card = f'---\nlicense: mit\nbase_model: someone/base\n---\n\n# "adapter"\n\n```python\n{lines}\n```\n'
    (adapter / "README.md").write_text(card)
    (root / "model").mkdir()
    write_merged(adapter, root / "model", "model")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(does: Callable[[], object]) -> LorasweepError:
    with pytest.raises(LorasweepError) as caught:
        does()
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("large", [False, True])
def test_a_whole_model_arrives_in_one_commit(
    hub: Hub, exported: Path, tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both as files in git and by the protocol for large files."""
    hub.large = large
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", large)
    assert check_upload(REPO) == REPO
    assert push_folder(exported / "model", REPO) == f"{hub.address}/{REPO}"
    expected = contents(exported / "model")
    assert bool(hub.large_files) == large
    card = hub.files.pop("README.md").decode()
    assert expected.pop("README.md").decode().replace('"model"', f'"{REPO}"') == card
    assert hub.files == expected
    assert hub.commits == 1
    (made,) = hub.created
    assert (made["name"], made["organization"], made["visibility"]) == ("news", "someone", "private")
    assert hub.tokens == {f"Bearer {TOKEN}"}
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    load_classifier(tmp_path, "cpu")


def test_a_name_alone_is_under_ones_own_account(hub: Hub, exported: Path) -> None:
    repo = check_upload("news")
    assert repo == REPO
    push_folder(exported / "model", repo, public=True)
    assert hub.created[0]["visibility"] == "public"


def test_an_adapter_names_its_base_model_as_the_hub_does(hub: Hub, exported: Path) -> None:
    before = contents(exported / "adapter")
    push_folder(exported / "adapter", REPO)
    assert contents(exported / "adapter") == before
    uploaded = json.loads(hub.files.pop("adapter_config.json"))
    own = json.loads(before.pop("adapter_config.json"))
    assert uploaded == own | {"base_model_name_or_path": "someone/base", "revision": None}
    assert own["base_model_name_or_path"].startswith("/")
    card = ModelCard(hub.files.pop("README.md").decode())
    assert card.data.base_model == "someone/base"
    assert card.text.count(f'from_pretrained("{REPO}"') == 3
    assert '# "adapter"' in card.text  # prose stays
    del before["README.md"]
    assert hub.files == before


def test_an_onnx_models_lines_fetch_it(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "best"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"model")
    card = f"---\nbase_model: {tmp_path}\n---\n# best\n```python\n{onnx_lines('best', ())}\n```\n"
    (folder / "README.md").write_text(card)
    push_folder(folder, REPO)
    uploaded = ModelCard(hub.files["README.md"].decode())
    assert "base_model" not in uploaded.data.to_dict()  # the hub would refuse a folder's name
    (code,) = re.findall(r"```python\n(.*?)```", uploaded.text, re.DOTALL)
    assert f'InferenceSession(snapshot_download("{REPO}") + "/model.onnx")' in code
    assert "from huggingface_hub import snapshot_download" in code
    assert '"best' not in code
    compile(code, "card", "exec")


def test_weights_of_another_format_do_not_stay(hub: Hub, exported: Path) -> None:
    hub.files = {"model.onnx": b"old", "model-00001-of-00002.safetensors": b"old", "notes.txt": b"mine"}
    push_folder(exported / "adapter", REPO)
    assert hub.files.keys() == {*contents(exported / "adapter"), "notes.txt"}
    push_folder(exported / "model", REPO)
    assert hub.files.keys() == {*contents(exported / "model"), "notes.txt"}


def test_an_adapter_that_only_this_machine_can_load_stays_here(
    hub: Hub, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = export_adapter(tiny_base("bert"), tmp_path / "adapter")
    error = refused(lambda: push_folder(folder, REPO))
    assert "is a folder of this machine" in str(error)
    assert "--format merged" in str(error)
    assert not hub.created


@pytest.mark.parametrize("name", ["", "a/b/c", "no spaces", "-x", "someone/" + "x" * 97, "../x"])
def test_a_name_that_the_hub_does_not_allow(hub: Hub, name: str) -> None:
    error = refused(lambda: check_upload(name))
    assert isinstance(error, SettingsError)
    assert repr(name) in str(error)


@pytest.mark.parametrize("path", ["/api/whoami-v2", "/api/repos/create", "/preupload/", "/commit/"])
@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "does not let this token"), (403, "does not let this token"), (400, "the hub refuses")],
)
def test_what_the_hub_refuses(hub: Hub, exported: Path, path: str, status: int, message: str) -> None:
    hub.refusals[path] = status, f"You cannot do\nthat with {TOKEN}"
    error = refused(lambda: push_folder(exported / "model", check_upload(REPO)))
    assert isinstance(error, ExportError)
    assert message in str(error)
    assert str(status) in str(error)
    assert ("is complete" in str(error)) == (path != "/api/whoami-v2")
    assert not hub.files


def test_no_token_and_no_network(exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve() as closed:
        address = closed.address
    connect(monkeypatch, address)
    for does in (lambda: check_upload(REPO), lambda: push_folder(exported / "model", REPO)):
        assert "the hub cannot be reached" in str(refused(does))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "unset the `HF_HUB_OFFLINE`" in str(refused(lambda: check_upload(REPO)))
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "hf auth login" in str(refused(lambda: check_upload(REPO)))
