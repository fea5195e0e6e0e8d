"""Models of the hub: cached ones without a network, others refused quickly."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_bases import make_tiny_base
from tiny_trials import refusal, run_apart
from transformers import AutoConfig, AutoModel

from lorasweep.training.model.hub import BaseModel, fingerprint, load_pretrained

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROGRAM = """
import json, time, torch
from lorasweep.training.model.base_model import *
from lorasweep.training.errors import ModelError
from lorasweep.training.model.target_modules import resolve_target_modules
from transformers import AutoConfig
started = time.monotonic()
base = resolve_base_model("someone/tiny")
loaded = load_base(base, ("a", "b"), 0, torch.device("cpu"))
load_tokenizer(base)
found = {"revision": base.revision, "hub_id": base.hub_id, "missing": loaded.missing}
found["targets"] = len(resolve_target_modules(empty_model(base), "bert", "all-linear"))
try:
    resolve_base_model("someone/other")
except ModelError as error:
    found["refusal"] = str(error)
print(json.dumps(found | {"seconds": time.monotonic() - started}))
"""


def test_a_cached_model_needs_no_network_and_another_fails_quickly(tmp_path: Path) -> None:
    cached = tmp_path / "models--someone--tiny"
    make_tiny_base("bert", cached / "snapshots" / COMMIT)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    found = run_apart(
        PROGRAM, HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9"
    )
    assert found["revision"] == COMMIT
    assert (found["hub_id"], found["missing"], found["targets"]) == ("someone/tiny", ["classifier"], 12)
    refused = str(found["refusal"])
    assert refused.startswith("base model someone/other: neither in the local cache")
    assert "--base-model minilm" in refused
    assert "\n" not in refused
    # The hub's library alone would try for minutes.
    assert float(str(found["seconds"])) < 60


def test_offline_a_hub_id_is_refused_in_one_line() -> None:
    # conftest.py has switched the hub off for the tests.
    assert "neither in the local cache" in refusal("someone/tiny")


def test_files_that_a_folder_lacks_are_not_asked_of_the_hub(tiny_base: Callable[[str], Path]) -> None:
    folder = tiny_base("bert")
    base = BaseModel("bert", str(folder), None, "bert")
    with pytest.raises(ValueError, match="Unrecognized model"):
        load_pretrained(AutoModel, replace(base, location=str(folder.parent)))
    assert load_pretrained(AutoConfig, base).model_type == "bert"


def test_copies_of_a_folder_have_one_fingerprint(tmp_path: Path) -> None:
    """Whatever their names; another configuration, other weights and other files of them tell it apart."""

    def folder(
        name: str, config: str = "{}", weights: bytes = b"w" * 9, file: str = "model.safetensors"
    ) -> str:
        place = tmp_path / name
        place.mkdir()
        (place / "config.json").write_text(config)
        (place / file).write_bytes(weights)
        return fingerprint(BaseModel(name, str(place), None, "bert"))

    first = folder("a")
    assert first == folder("b")
    others = [
        folder("c", config="{ }"),
        folder("d", weights=b"w" * 8 + b"v"),
        folder("e", file="x.safetensors"),
    ]
    assert len({first, *others}) == 4
    assert fingerprint(BaseModel("org/model", "org/model", "org/model", "bert", "abc")) == ""
    with pytest.raises(OSError, match=r"config\.json"):
        fingerprint(BaseModel("gone", str(tmp_path / "gone"), None, "bert"))
