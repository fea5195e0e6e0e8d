"""Model files on this machine, and those that come from the model hub."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorasweep.training.errors import ModelError, first_line

# The files that PEFT and transformers write weights to.
ADAPTER_WEIGHTS, FULL_WEIGHTS = "adapter_model.safetensors", "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
# Read of the beginning and of the end of a file of weights, to tell it from another's.
SAMPLE_BYTES = 2**20
# Weights that are not loaded: patterns of their files → what they are.
OTHER_WEIGHTS = {
    ("*.bin", "*.pt", "*.ckpt"): "a pickle that could run code",
    ("*.onnx", "onnx/*.onnx"): "an ONNX model, which cannot be trained",
    ("*.h5", "*.msgpack", "*.gguf"): "which is another library's format",
}


@dataclass(frozen=True)
class BaseModel:
    """Where a base model is, and its names.

    Attributes:
        name: the user's.
        location: what transformers loads: a hub id or a folder.
        hub_id: the hub's name of the same weights, if there is one.
        model_type: the configuration's, such as `bert`.
        revision: the resolved commit of the hub's repository, if known.
        pad_token_id: the tokenizer's, where the configuration has none, or of a decoder another.
    """

    name: str
    location: str
    hub_id: str | None
    model_type: str
    revision: str | None = None
    pad_token_id: int | None = None

    @property
    def config_entries(self) -> dict[str, Any]:
        """What the model's configuration needs beside its labels.

        A decoder reads a text's label at the last token that is not padding, and refuses batches where its
        configuration does not say what padding is.
        """
        return {} if self.pad_token_id is None else {"pad_token_id": self.pad_token_id}


def cached_revision(hub_id: str) -> str | None:
    """The commit of a hub's repository whose configuration is in the local cache, if any."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(hub_id, "config.json")
    return Path(path).parent.name if isinstance(path, str) else None


def hub_revision(hub_id: str) -> str | None:
    """The newest commit of a hub's repository; asked once, for at most 10 seconds.

    Raises:
        ModelError: no such repository, terms not accepted, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return HfApi().model_info(hub_id, timeout=10).sha
    except GatedRepoError as error:
        raise ModelError(
            f"base model {hub_id}: its terms must be accepted first; accept them on the model's page and run: "
            "hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"base model {hub_id}: the hub has no such public model; check the name") from error
    except Exception as error:  # no network, a proxy, time-outs: each client library has its own classes
        raise ModelError(
            f"base model {hub_id}: neither in the local cache nor reachable on the hub; check the name and "
            "the network, or name a local folder, or use --base-model minilm, which needs no download"
        ) from error


def load_pretrained(
    kind: Any, base: BaseModel, *, whole: Callable[[Any], bool] = lambda loaded: True, **options: Any
) -> Any:
    """`kind.from_pretrained` of a base model: from this machine's files, else from the hub.

    The loaders by themselves ask the hub even about cached files, and retry for minutes without a network.

    Args:
        kind: one of transformers' Auto classes.
        whole: whether an object loaded from the cache is complete.

    Raises:
        ModelError: a file is not cached and the hub cannot be reached.
        OSError, ValueError: raised by the loader.
    """
    on_hub = base.location == base.hub_id
    # Code in a stranger's repository is never run, and nobody is asked whether to run it.
    options |= {"revision": base.revision, "trust_remote_code": False}
    try:
        loaded = kind.from_pretrained(base.location, local_files_only=True, **options)
        if whole(loaded) or not on_hub:
            return loaded
    except (OSError, ValueError):
        if not on_hub:
            raise
    hub_revision(base.location)
    return kind.from_pretrained(base.location, **options)


def check_weights(base: BaseModel) -> None:
    """Refuse a base model without whole weights in safetensors. Of a hub's, only what is on this machine is known.

    Raises:
        ModelError: a folder has none or lacks a file of them, or the index names anything but safetensors.
    """
    from huggingface_hub import try_to_load_from_cache

    if base.location == base.hub_id:
        path = try_to_load_from_cache(base.location, WEIGHTS_INDEX, revision=base.revision)
        if isinstance(path, str):
            check_shards(Path(path), whole=False)
        return
    folder = Path(base.location)
    if not any((folder / name).is_file() for name in (FULL_WEIGHTS, WEIGHTS_INDEX)):
        raise ModelError(
            f"base model {base.name}: no weights in {FULL_WEIGHTS} ({other_weights(folder)}); save them as "
            "safetensors with transformers' save_pretrained, or name another model"
        )
    if not (folder / FULL_WEIGHTS).is_file():
        check_shards(folder / WEIGHTS_INDEX)


def check_reachable(base: BaseModel) -> None:
    """Refuse a hub's base model whose weights are neither on this machine nor to be had.

    Raises:
        ModelError: the weights are not cached, and the hub cannot be reached.
    """
    from huggingface_hub import try_to_load_from_cache

    if base.location != base.hub_id:
        return
    cached = (
        try_to_load_from_cache(base.location, name, revision=base.revision)
        for name in (FULL_WEIGHTS, WEIGHTS_INDEX)
    )
    if not any(isinstance(path, str) for path in cached):
        hub_revision(base.location)


def fingerprint(base: BaseModel) -> str:
    """What tells the files of a base model's folder from those of another: equal where they are copies.

    The configuration counts in full, of each file of weights its size, its beginning and its end. Empty for a hub's
    model, whose revision says which it is.

    Raises:
        OSError: a file cannot be read.
    """
    if base.location == base.hub_id:
        return ""
    digest = hashlib.sha256()
    folder = Path(base.location)
    for path in (folder / "config.json", *sorted(folder.glob("*.safetensors"))):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(f"{path.name} {size} ".encode())
            for place in (0, max(size - SAMPLE_BYTES, 0)):
                file.seek(place)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def other_weights(folder: Path) -> str:
    """What a folder holds in place of safetensors, in words."""
    for patterns, what in OTHER_WEIGHTS.items():
        names = sorted(path.name for pattern in patterns for path in folder.glob(pattern))
        if names:
            return f"only {names[0]}, {what}"
    return "none at all"


def check_shards(index: Path, *, whole: bool = True) -> None:
    """Refuse an index of weights that names anything but safetensors beside it.

    transformers itself would follow the index to a pickle, or out of the folder.

    Args:
        index: a model's `model.safetensors.index.json`; it may be missing.
        whole: whether the files have to be there.

    Raises:
        ModelError: it names something else than safetensors files of its folder, lacks one, or cannot be read.
    """
    if not index.is_file():
        return
    try:
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        odd = sorted(
            str(file) for file in files if Path(file).name != file or Path(file).suffix != ".safetensors"
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index}: cannot be read as an index of weights ({first_line(error)})") from error
    if odd:
        raise ModelError(
            f"{index}: names {odd[0]!r:.80}, which is no safetensors file beside it; save the weights as "
            "safetensors"
        )
    lost = sorted(file for file in files if not (index.parent / file).is_file()) if whole else []
    if lost:
        raise ModelError(
            f"{index}: names {lost[0]}, which is not there ({len(lost)} of {len(files)} files are missing); "
            "copy or download the model again"
        )


def check_attention(config: Any, name: str) -> None:
    """Refuse a model configuration that asks for attention code from a hub.

    Raises:
        ModelError: it does.
    """
    attention = getattr(config, "_attn_implementation", None)
    if "/" in str(attention):
        raise ModelError(
            f"{name}: its config.json asks for attention code from a hub ({attention!r:.80}), which lorasweep does "
            "not run; remove attn_implementation from it"
        )
