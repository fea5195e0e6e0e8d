"""Weights of base models: what a checkpoint lacks, fresh heads, types, refusals."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_bases import FAMILIES
from tiny_trials import CPU, FP32, LABELS, copies, loaded, refusal, same, texts
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification

from lorasweep.training.model.base_model import load_base, resolve_base_model
from lorasweep.training.model.heads import label_modules
from lorasweep.training.scores.scores import predict_logits

WEIGHTS = "model.safetensors"
MISSING = {
    "bert": ("classifier",),
    "roberta": ("classifier",),
    "distilbert": ("pre_classifier", "classifier"),
    "electra": ("classifier",),
    "deberta": ("pooler", "classifier"),
    "deberta-v2": ("pooler", "classifier"),
    "modernbert": ("head", "classifier"),
    "mpnet": ("classifier",),
    "albert": ("classifier",),
    "t5": ("classification_head",),
    **dict.fromkeys(("llama", "qwen3", "opt", "gpt_neox", "gpt2"), ("score",)),
}
# Family → part of a layer's name in the checkpoint, where layers have other names or only one is held.
PART_OF_A_LAYER = {"albert": ".ffn.", "gpt2": "h.1."}


@pytest.fixture
def bert(tiny_base: Callable[[str], Path], tmp_path: Path) -> Path:
    """A tiny BERT that a test may change."""
    return Path(shutil.copytree(tiny_base("bert"), tmp_path / "bert"))


class TestMissingModules:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_of_an_encoder_alone(self, tiny_base: Callable[[str], Path], family: str) -> None:
        assert loaded(tiny_base(family)).missing == MISSING[family]

    def test_of_a_bert_without_pooler(self, bert: Path, tmp_path: Path) -> None:
        encoder = AutoModel.from_pretrained(bert, add_pooling_layer=False)
        encoder.save_pretrained(tmp_path / "no-pooler")
        assert loaded(tmp_path / "no-pooler").missing == ("bert.pooler", "classifier")

    def test_a_modernbert_with_its_pretrained_head_keeps_it(
        self, tiny_base: Callable[[str], Path], tmp_path: Path
    ) -> None:
        whole = AutoModelForSequenceClassification.from_pretrained(tiny_base("modernbert"))
        nn.init.normal_(whole.head.dense.weight)
        whole.save_pretrained(tmp_path)
        weights = load_file(tmp_path / WEIGHTS)
        rest = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
        save_file(rest, tmp_path / WEIGHTS, metadata={"format": "pt"})
        base = loaded(tmp_path)
        assert base.missing == ("classifier",)
        assert torch.equal(base.model.get_submodule("head.dense").weight, whole.head.dense.weight)

    def test_a_module_half_of_which_is_there_is_trained_whole(self, bert: Path) -> None:
        drop(bert, lambda name: name == "pooler.dense.bias")
        assert loaded(bert).missing == ("bert.pooler.dense", "classifier")

    @pytest.mark.parametrize("family", FAMILIES)
    def test_are_random_by_the_seed_and_the_rest_is_the_checkpoints(
        self, tiny_base: Callable[[str], Path], family: str
    ) -> None:
        first, second, other = (loaded(tiny_base(family), seed=seed) for seed in (0, 0, 1))
        assert same(copies(first.model), copies(second.model))
        differing = {
            name
            for name, tensor in copies(other.model).items()
            if not torch.equal(tensor, copies(first.model)[name])
        }
        assert differing
        assert all(name.startswith(tuple(f"{module}." for module in first.missing)) for name in differing)


def drop(folder: Path, lost: Callable[[str], bool]) -> None:
    weights = load_file(folder / WEIGHTS)
    kept = {name: tensor for name, tensor in weights.items() if not lost(name)}
    assert len(kept) < len(weights)
    save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})


class TestIncompleteEncoders:
    @pytest.mark.parametrize(
        "part",
        [
            "encoder.layer.1.output.dense.weight",
            "encoder.layer.0.",
            "encoder.",
            "embeddings.word",
            "embeddings.",
            "",  # not one name of the file is a BERT's
        ],
    )
    def test_are_refused(self, bert: Path, part: str) -> None:
        drop(bert, lambda name: name.startswith(part))
        assert "lacks weights of the encoder" in refusal(bert)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_are_refused_in_every_family(
        self, tiny_base: Callable[[str], Path], tmp_path: Path, family: str
    ) -> None:
        folder = Path(shutil.copytree(tiny_base(family), tmp_path / family))
        part = PART_OF_A_LAYER.get(family)
        drop(folder, lambda name: part in name if part else "layer" in name and ".1." in name)
        assert "lacks weights of the encoder" in refusal(folder)

    def test_of_another_width_are_refused(self, bert: Path) -> None:
        config = json.loads((bert / "config.json").read_text())
        (bert / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
        assert "lacks weights of the encoder" in refusal(bert)


class TestHeads:
    def classifier(self, encoder: Path, labels: tuple[str, ...], folder: Path) -> Path:
        """A checkpoint that classifies already, with a head that no fresh one equals."""
        model = load_base(resolve_base_model(str(encoder)), labels, 0, CPU).model
        for parameter in model.get_submodule(label_modules(model)[-1]).parameters():
            nn.init.normal_(parameter, mean=5.0)
        model.save_pretrained(folder)
        return folder

    def own_head_parts(self, folder: Path, head: str = "classifier") -> set[str]:
        base = loaded(folder)
        held = load_file(folder / WEIGHTS)
        assert base.missing[-1] == head
        assert len([name for name in base.missing if name.startswith(head)]) == 1
        return {
            name
            for name, tensor in copies(base.model).items()
            if name.startswith(head) and torch.equal(tensor, held[name])
        }

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("labels", [("a", "b", "c", "d", "e"), ("a", "b", "c")])
    def test_of_other_labels_are_made_anew(
        self, tiny_base: Callable[[str], Path], tmp_path: Path, family: str, labels: tuple[str, ...]
    ) -> None:
        folder = self.classifier(tiny_base(family), labels, tmp_path / "classifier")
        assert self.own_head_parts(folder, MISSING[family][-1]) == set()
        config = loaded(folder).model.config
        assert config.id2label == dict(enumerate(LABELS))
        assert config.label2id == {name: number for number, name in enumerate(LABELS)}

    @pytest.mark.parametrize("family", ["bert", "roberta"])
    def test_of_the_same_labels_go_on(
        self, tiny_base: Callable[[str], Path], tmp_path: Path, family: str
    ) -> None:
        folder = self.classifier(tiny_base(family), LABELS, tmp_path / "classifier")
        held = load_file(folder / WEIGHTS)
        assert self.own_head_parts(folder) == {name for name in held if "classifier" in name}


class TestWeights:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_of_half_precision_are_loaded_as_fp32(
        self, bert: Path, tmp_path: Path, dtype: torch.dtype
    ) -> None:
        AutoModel.from_pretrained(bert).to(dtype).save_pretrained(tmp_path / "half")
        held = load_file(tmp_path / "half" / WEIGHTS)
        assert {tensor.dtype for tensor in held.values()} == {dtype}
        model = loaded(tmp_path / "half").model
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        name = "embeddings.word_embeddings.weight"
        assert torch.equal(model.get_parameter(f"bert.{name}"), held[name].float())
        assert np.isfinite(predict_logits(model, texts(8), FP32)).all()

    @pytest.mark.parametrize(
        ("file", "what"),
        [
            ("pytorch_model.bin", "only pytorch_model.bin, a pickle"),
            ("onnx/model.onnx", "only model.onnx, an ONNX model"),
            ("tf_model.h5", "only tf_model.h5, which is another library's format"),
            ("notes.txt", "none at all"),
        ],
    )
    def test_in_another_format_are_refused(self, bert: Path, file: str, what: str) -> None:
        (bert / file).parent.mkdir(exist_ok=True)
        (bert / WEIGHTS).rename(bert / file)
        message = refusal(bert)
        assert what in message
        assert "save them as safetensors" in message

    def test_in_parts_are_loaded_and_a_missing_part_is_named(self, bert: Path) -> None:
        AutoModel.from_pretrained(bert).save_pretrained(bert, max_shard_size="10KB")
        (bert / WEIGHTS).unlink(missing_ok=True)
        parts = sorted(bert.glob("model-*.safetensors"))
        assert len(parts) > 2
        assert loaded(bert).missing == ("classifier",)
        parts[1].unlink()
        message = refusal(bert)
        assert f"names {parts[1].name}, which is not there (1 of {len(parts)} files are missing)" in message

    def test_cut_off_are_refused(self, bert: Path) -> None:
        content = (bert / WEIGHTS).read_bytes()
        for damaged in (content[:-100], content[:10], b""):
            (bert / WEIGHTS).write_bytes(damaged)
            assert "cannot be loaded" in refusal(bert)
