"""Attention on CPUs under bf16: the same attention, in every family that has a fused one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_bases import ALIKE, FAMILIES
from tiny_trials import CPU, FP32, dataset, loaded
from torch import nn

from lorasweep.training.model import classifier as model_module
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.classifier import build_classifier, save_weights
from lorasweep.training.model.families import MODEL_FAMILIES
from lorasweep.training.model.faster import attention as attention_module
from lorasweep.training.model.faster.attention import NAME, speed_up_attention
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.scores.scores import predict_logits
from lorasweep.training.settings import Hyperparameters

BF16 = AmpPolicy("bf16", CPU)
# DeBERTa and MPNet compute attention themselves, and Gemma 2 needs a cap that torch's kernels do not have.
OWN = ("deberta", "deberta-v2", "mpnet", "gemma2")
FUSED = [family for family in FAMILIES if family not in OWN]
DECODERS = [name for name, family in MODEL_FAMILIES.items() if family.decoder]
FULL = Hyperparameters(method="full", base_dropout=0.0)


def gradients(model: nn.Module, amp: AmpPolicy) -> torch.Tensor:
    """All gradients of one batch's loss, end to end."""
    texts = dataset().train
    with amp.autocast():
        logits = model(**texts.batch(torch.arange(8).numpy(), CPU)).logits
    nn.functional.cross_entropy(logits.float(), torch.from_numpy(texts.labels[:8])).backward()
    return torch.cat([p.grad.flatten().float() for p in model.parameters() if p.grad is not None])


def plain(base: LoadedBase, amp: AmpPolicy, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    with monkeypatch.context() as patch:
        patch.setattr(model_module, "speed_up_attention", lambda model, amp: None)
        return build_classifier(base, FULL, 0, amp)


@pytest.mark.parametrize("family", FUSED)
def test_it_is_as_near_to_fp32_as_plain_bf16(
    family: str, tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = loaded(tiny_base(family))
    exact, fast = build_classifier(base, FULL, 0, FP32), build_classifier(base, FULL, 0, BF16)
    slow = plain(base, BF16, monkeypatch)
    assert fast.config._attn_implementation == NAME
    data = dataset().test
    wanted, found, before = (
        predict_logits(m, data, a) for m, a in ((exact, FP32), (fast, BF16), (slow, BF16))
    )
    assert abs(found - wanted).mean() <= 1.5 * abs(before - wanted).mean()
    right, now, then = gradients(exact, FP32), gradients(fast, BF16), gradients(slow, BF16)
    assert (now - right).norm() <= 1.5 * (then - right).norm()
    assert torch.nn.functional.cosine_similarity(now, right, dim=0) > 0.99


@pytest.mark.parametrize("longest", [256, 1])
@pytest.mark.parametrize("family", sorted({*FUSED, *ALIKE, "bart"} - {*OWN}))
def test_in_fp32_it_is_the_models_own(
    family: str, longest: int, tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways: the plain products for short texts, and the kernel for longer ones."""
    monkeypatch.setattr(attention_module, "PLAIN_TOKENS", longest)
    base = loaded(tiny_base(family))
    own, other = build_classifier(base, FULL, 0, FP32), build_classifier(base, FULL, 0, FP32)
    speed_up_attention(other, BF16)
    assert (own.config._attn_implementation, other.config._attn_implementation) == ("sdpa", NAME)
    data = dataset().test
    assert abs(predict_logits(other, data, FP32) - predict_logits(own, data, FP32)).max() < 1e-5
    wanted = gradients(own, FP32)
    assert (gradients(other, FP32) - wanted).norm() < 1e-5 * wanted.norm()


@pytest.mark.parametrize("longest", [256, 1])
@pytest.mark.parametrize("family", sorted({*DECODERS, "t5"}))
def test_no_token_of_a_decoder_sees_those_behind_it(
    family: str, longest: int, tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without padding there is no mask to say so, and heads of keys may be as many as those of queries."""
    monkeypatch.setattr(attention_module, "PLAIN_TOKENS", longest)
    base = loaded(tiny_base(family))
    own, other = build_classifier(base, FULL, 0, FP32).eval(), build_classifier(base, FULL, 0, FP32).eval()
    speed_up_attention(other, BF16)
    assert other.config._attn_implementation == ("eager" if family in OWN else NAME)
    split = dataset().train
    same = np.flatnonzero(split.lengths == np.bincount(split.lengths).argmax())
    assert len(same) > 2
    with torch.inference_mode():
        for batch in (split.batch(same, CPU), split.batch(np.arange(8), CPU)):
            wanted = own(**batch, output_hidden_states=True)
            found = other(**batch, output_hidden_states=True)
            torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-4, atol=1e-5)
            if family != "t5":
                torch.testing.assert_close(
                    found.hidden_states[-1][:, 0], wanted.hidden_states[-1][:, 0], rtol=1e-4, atol=1e-5
                )


def test_dropout_of_the_attention(tiny_base: Callable[[str], Path]) -> None:
    model = build_classifier(loaded(tiny_base("bert")), FULL, 0, BF16)
    model.bert.encoder.layer[0].attention.self.dropout.p = 0.5
    inputs = dataset().train.batch(torch.arange(8).numpy(), CPU)
    torch.manual_seed(3)
    first, second = model(**inputs).logits, model(**inputs).logits
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("family", [*FAMILIES, "gemma2"])
def test_nothing_else_is_changed(family: str, tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    base = loaded(tiny_base(family))
    before = base.model.config._attn_implementation
    for amp in (FP32,) if MODEL_FAMILIES[family].fp32_only else (FP32, BF16):
        model = build_classifier(base, FULL, 0, amp)
        changed = amp is BF16 and family in FUSED
        assert (model.config._attn_implementation == NAME) == changed
        save_weights(model, tmp_path / amp.name)
        assert NAME not in json.dumps(json.loads((tmp_path / amp.name / "config.json").read_text()))
    assert base.model.config._attn_implementation == before != NAME


def test_a_gpu_keeps_its_own_kernels(tiny_base: Callable[[str], Path]) -> None:
    model = build_classifier(loaded(tiny_base("bert")), FULL, 0, FP32)
    speed_up_attention(model, AmpPolicy("bf16", torch.device("cuda")))
    assert model.config._attn_implementation == "sdpa"
