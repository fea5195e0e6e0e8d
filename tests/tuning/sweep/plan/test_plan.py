"""What a plan checks before the first trial, and what it keeps for later ones."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny_bases import make_tiny_base
from whole_sweeps import write_rows

from lorasweep.training.amp_types import Precision
from lorasweep.training.devices import Card
from lorasweep.training.errors import LorasweepError
from lorasweep.training.model.base_model import load_tokenizer, resolve_base_model
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.sweep.plan import planning as module
from lorasweep.tuning.sweep.plan.plan import alone, trial_setup
from lorasweep.tuning.sweep.plan.planning import plan_sweep
from lorasweep.tuning.trials.hardware import Hardware, Node
from lorasweep.tuning.trials.probe import Probed
from lorasweep.tuning.trials.shares import Resources


@pytest.fixture
def place(tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with texts and a base model that a test may change."""
    write_rows(tmp_path / "rows.csv")
    shutil.copytree(tiny_base("bert"), tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(**training: int | str) -> SweepConfig:
    """As it is asked for: of the training, nothing else is given."""
    return SweepConfig.model_validate(
        {"name": "demo", "data": {"path": "rows.csv"}, "base_model": "base", "training": training}
    )


def test_a_base_model_named_from_here_is_found_from_elsewhere(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_sweep(config())
    assert plan.config.base_model == str(place / "base")
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    again = plan_sweep(plan.config, plan.dataset, plan.space)
    assert (again.config, again.base.location) == (plan.config, plan.base.location)


def test_the_default_length_is_what_the_model_can_read(place: Path) -> None:
    """Nobody has asked for 128 tokens; who asks for them of a model with 64 positions is refused."""
    assert SweepConfig(name="demo").training.max_length == 128
    plan = plan_sweep(config(epochs=2))
    assert (plan.config.training.max_length, plan.config.training.epochs) == (64, 2)


def test_a_decoder_that_knows_no_padding_and_longer_texts_than_it_has_seen(place: Path) -> None:
    shutil.rmtree(place / "base")
    make_tiny_base("qwen3", place / "base", bare=True, max_position_embeddings=4)
    plan = plan_sweep(config(max_length=64))
    assert plan.base.pad_token_id == plan.encoded.train.pad_id == 3
    assert [note for note in plan.notes if "pretrained on at most 4" in note] == list(plan.length_notes)
    assert len(plan.length_notes) == 1


def not_numbers(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"][0] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})


def more_tokens(base: Path) -> None:
    tokenizer = load_tokenizer(resolve_base_model(str(base)))
    tokenizer.add_tokens(["[NEW]"])
    tokenizer.save_pretrained(base)


def a_pickle(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "max_length", "message"),
    [
        (
            lambda base: None,
            65,
            r"^--max-length 65: base model .*/base reads at most 64 tokens; use 64 or less",
        ),
        (a_pickle, 64, "only pytorch_model.bin, a pickle"),
        (more_tokens, 64, r"its tokenizer's tokens go up to number \d+ \('\[NEW\]'\)"),
        (not_numbers, 64, "logits of the longest row"),
    ],
)
def test_a_base_model_that_would_fail_in_a_trial_is_refused(
    place: Path, damage: Callable[[Path], None], max_length: int, message: str
) -> None:
    damage(place / "base")
    with pytest.raises(LorasweepError, match=message) as caught:
        plan_sweep(config(max_length=max_length))
    assert "\n" not in str(caught.value)


A100 = Card("NVIDIA A100-SXM4-80GB", (8, 0), 80 * 10**9)
T4 = Card("Tesla T4", (7, 5), 16 * 10**9)


def cluster(cards: Sequence[Card], monkeypatch: pytest.MonkeyPatch) -> Hardware:
    """A head without a GPU, where the plan is made, and a node of 16 cores for each GPU."""
    precisions: tuple[Precision, ...] = ("fp16", "fp32") if T4 in cards else ("bf16", "fp16", "fp32")
    nodes = (Node(16, 0, "head"), *(Node(16, 1, str(number)) for number in range(len(cards))))
    found = Hardware(nodes, tuple(cards), precisions)
    monkeypatch.setattr(module, "find_nodes", lambda address: nodes)
    monkeypatch.setattr(module, "find_hardware", lambda address, nodes, gpus_per_trial, known: found)
    monkeypatch.setattr(
        module, "probe_nodes", lambda wanted, nodes, bases, quantize: Probed(notes=("nodes differ",))
    )
    return found


def at(address: str | None, **resources: float | None) -> SweepConfig:
    """A sweep on a cluster, whose nodes share a folder."""
    entries = config(epochs=2).model_dump(exclude_unset=True)
    shared = {"address": address, "storage": "shared"}
    return SweepConfig.model_validate(entries | {"resources": shared | resources})


def test_several_nodes_need_a_storage(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that can be used. It is looked at before the rows and the model."""
    cluster([A100], monkeypatch)
    shutil.rmtree(place / "base")
    with pytest.raises(LorasweepError, match=r"^--address: the cluster has 2 nodes, .* with --storage$"):
        plan_sweep(at("head:6379", storage=None))
    (place / "shared").write_text("a file")
    with pytest.raises(LorasweepError, match=r"^--storage .*/shared: it cannot be used \(.*ot a directory"):
        plan_sweep(at("head:6379"))


def test_a_plan_shows_what_the_workers_have_and_hands_its_precision_to_them(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever this process has: it may be a head without a GPU."""
    cluster([A100, A100], monkeypatch)
    plan = plan_sweep(at("head:6379"))
    summary = plan.summary()
    assert (summary["device"], summary["precision"]) == ("cuda", "bf16")
    assert summary["machine"]["gpus"] == [A100.name] * 2
    assert plan.config.training.precision == "auto"
    assert trial_setup(plan, plan.resources).training_settings.precision == "bf16"
    # A tiny model: as many trials as the sampler should have at once.
    assert plan.resources == Resources(48, 2.0, 4, 0.5, 4)
    assert re.fullmatch(r"a trial may take 0\.\d GB of a GPU's 80 GB", str(summary["gpu_share_reason"]))
    assert not any("GPUs" in note for note in plan.notes)
    assert "nodes differ" in plan.notes


def test_a_mixed_cluster_trains_in_what_all_its_gpus_can_do(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster([A100, T4, T4], monkeypatch)
    plan = plan_sweep(at("head:6379"))
    assert trial_setup(plan, plan.resources).training_settings.precision == "fp16"
    assert plan.notes[-2] == (
        "the GPUs differ (NVIDIA A100-SXM4-80GB, 2 × Tesla T4): all trials run in fp16, which all of them have "
        "in hardware"
    )
    assert "a GPU's 16 GB" in plan.share_reason


def test_who_names_a_share_gets_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster([A100, A100], monkeypatch)
    plan = plan_sweep(at("head:6379", gpus_per_trial=1))
    assert (plan.resources.gpus_per_trial, plan.share_reason, plan.summary()["gpu_share_reason"]) == (
        1.0,
        "",
        None,
    )
    with pytest.raises(LorasweepError, match="--gpus-per-trial 2: no node has more than 1 GPUs"):
        plan_sweep(at("head:6379", gpus_per_trial=2))


def test_a_single_training_on_this_machine_has_all_cores_and_a_whole_gpu(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster it has a trial's share, which is what its worker reserves."""
    cluster([A100], monkeypatch)
    here, there = plan_sweep(at(None)), plan_sweep(at("head:6379"))
    assert here.resources == there.resources == Resources(32, 1.0, 4, 0.25, 4)
    assert alone(here) == Resources(32, 1.0, 16, 1.0, 1)
    assert alone(there) == there.resources


@pytest.mark.parametrize(
    ("cards", "precision", "earlier", "runs_in", "noted"),
    [
        # A sweep of T4s that goes on with an A100 stays in fp16; the other way round it cannot stay in bf16.
        ([A100], "auto", {"precision": "fp16", "device": "cuda"}, "fp16", False),
        ([T4], "auto", {"precision": "bf16", "device": "cuda"}, "fp16", True),
        ([A100], "auto", {"precision": "fp32", "device": "cpu"}, "bf16", True),
        ([A100], "fp32", {"precision": "bf16", "device": "cuda"}, "fp32", True),
        ([A100], "auto", {}, "bf16", False),
    ],
)
def test_a_sweep_goes_on_in_the_precision_of_its_earlier_trials(
    cards: list[Card],
    precision: Precision,
    earlier: dict[str, str],
    runs_in: str,
    noted: bool,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are compared. Where that cannot be, it is said."""
    cluster(cards, monkeypatch)
    plan = plan_sweep(config(precision=precision)).going_on(earlier)
    assert trial_setup(plan, plan.resources).training_settings.precision == runs_in
    assert any("earlier trials ran in" in note for note in plan.notes) == noted


def on_part(proxy: float, **search: object) -> SweepConfig:
    """Of 48 training and 6 validation rows."""
    entries = config().model_dump(exclude_unset=True) | {"search": {"proxy": proxy, **search}}
    return SweepConfig.model_validate(entries)


def test_a_part_of_the_rows_to_search_on(place: Path) -> None:
    """A resumed sweep draws the same one; the test split is whole, and the part's rows are those of the whole."""
    plan = plan_sweep(on_part(0.25, trials=10, finalists=2))
    assert plan.search_data is plan.part
    assert plan.part is not None
    assert (len(plan.part.train), len(plan.part.validation)) == (12, 6)
    assert plan.part.test is plan.encoded.test
    assert plan.summary()["part"] == {"train": 12, "validation": 6, "best": 2, "finalists": 3}
    again = plan_sweep(plan.config, plan.dataset, plan.space)
    assert again.part is not None
    assert again.part.train.input_ids.tolist() == plan.part.train.input_ids.tolist()
    assert plan_sweep(on_part(12)).finalists == 4, "the best three and the start"
    assert plan_sweep(on_part(12, trials=2)).finalists == 2
    whole = plan_sweep(config())
    assert (whole.part, whole.finalists, whole.summary()["part"]) == (None, 0, None)
    assert whole.search_data is whole.encoded


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        (48, "--proxy 48: all 48 training rows are no part; ask for fewer, or leave it out"),
        (0.03, "--proxy 0.03: 1 of 48 training rows are fewer than the 3 classes; ask for more"),
    ],
)
def test_a_part_that_is_none_is_refused(place: Path, proxy: float, message: str) -> None:
    with pytest.raises(LorasweepError) as caught:
        plan_sweep(on_part(proxy))
    assert str(caught.value) == message
