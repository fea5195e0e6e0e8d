"""Whether a base model, its tokenizer and the rows fit together, seen before anything is trained.

Lengths and vocabularies are compared on the empty model, which costs next to nothing; one forward pass of the longest
row by the loaded model shows the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from lorasweep.training.data.device_texts import LENGTH_STEP, DeviceTexts
from lorasweep.training.errors import ModelError, SettingsError, first_line
from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.faster.mask import takes_unpadded
from lorasweep.training.model.hub import BaseModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lorasweep.training.data.encoded import EncodedTexts

# Names that transformers gives to tables with a row for each position. Relative positions have other names.
POSITION_TABLES = (
    "position_embeddings",
    "char_position_embeddings",
    "embed_positions",
    "positions_embed",
    "wpe",
)
# A decoder whose logit moves by more than this beside a longer row takes padding for text.
SAME = 1e-3


def most_tokens(model: nn.Module) -> int | None:
    """Tokens of the longest row that a transformers model can read; None where its code sets no limit.

    A table of positions has a row for each. RoBERTa, XLM-R, MPNet and Longformer keep its first rows for padding,
    BART and OPT two of no use; models with relative or rotary positions have no such table.
    """
    limits: list[int] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in POSITION_TABLES:
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - int(getattr(module, "offset", reserved)))
    named = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    # Some tables are larger than what the model's code reaches.
    return min([*limits, named] if isinstance(named, int) else limits) if limits else None


def length_notes(model: nn.Module, base: BaseModel, longest: int) -> list[str]:
    """A sentence where a row is longer than those that a model without a limit was pretrained on; else nothing.

    Relative and rotary positions go on without an end, and what they say far beyond those lengths is not learnt.

    Args:
        longest: tokens of the longest row, cut off at `--max-length`.
    """
    config: Any = getattr(model, "config", None)
    seen = getattr(config, "max_position_embeddings", None)
    if most_tokens(model) is not None or not isinstance(seen, int) or longest <= seen:
        return []
    return [
        f"the longest text has {longest:,} tokens, and {base.name} was pretrained on at most {seen:,}: it can read "
        f"them, but may not gain from what is beyond; --max-length {seen} cuts them off"
    ]


def device_texts(model: nn.Module, texts: EncodedTexts, device: torch.device) -> DeviceTexts:
    """A split on a device, with batches of the lengths and masks that a model reads."""
    most = most_tokens(model)
    if most is None:
        most = int(texts.windows.lengths.max(initial=0)) + LENGTH_STEP
    return DeviceTexts(texts, device, most, takes_unpadded(model))


def check_fit(model: nn.Module, base: BaseModel, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Compare a model with its tokenizer and the length that is asked of it.

    Args:
        model: the base model, with or without weights.
        max_length: tokens of a text that are read.

    Raises:
        SettingsError: the model has fewer positions.
        ModelError: the tokenizer knows tokens that the model does not.
    """
    limit = most_tokens(model)
    if limit is not None and max_length > limit:
        raise SettingsError(
            f"--max-length {max_length}: base model {base.name} reads at most {limit} tokens; use {limit} or less"
        )
    rows = _embedded_tokens(model)
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    if beyond:
        token = max(beyond, key=lambda token: beyond[token])
        raise ModelError(
            f"base model {base.name}: its tokenizer's tokens go up to number {beyond[token]} ({token!r:.40}), and its "
            f"embedding has only {rows} rows; call the model's resize_token_embeddings({beyond[token] + 1}) and save "
            "it again, or take the tokenizer that belongs to it"
        )


def _embedded_tokens(model: Any) -> float:
    """Tokens that the model knows; infinitely many for one that hashes characters, such as CANINE."""
    try:
        return getattr(model.get_input_embeddings(), "num_embeddings", math.inf)
    except NotImplementedError:
        return math.inf


@torch.inference_mode()
def check_rows(
    loaded: LoadedBase, tokenizer: PreTrainedTokenizerBase, splits: Iterable[EncodedTexts]
) -> None:
    """Run the longest row of all splits, beside the shortest row of its split, through the model once.

    Raises:
        ModelError: the model fails, its predictions are not numbers, or it takes padding for text.
    """
    texts = max((split.windows for split in splits if len(split)), key=lambda split: split.lengths.max())
    longest, shortest = int(texts.lengths.argmax()), int(texts.lengths.argmin())
    base, model = loaded.base, loaded.model
    device = next(model.parameters()).device
    training = model.training
    model.eval()

    def run(*rows: int) -> torch.Tensor:
        logits: torch.Tensor = model(**texts.batch(np.array(rows), device)).logits
        return logits

    try:
        together = run(longest, shortest)
        alone = run(shortest)
    except Exception as error:  # the model's own code, which raises whatever it likes
        limit = tokenizer.model_max_length
        advice = f" (its tokenizer says at most {limit})" if limit < texts.lengths.max() else ""
        raise ModelError(
            f"base model {base.name}: cannot read the longest row, of {texts.lengths.max()} tokens{advice}: "
            f"{type(error).__name__}, {first_line(error)}; lower --max-length or name another model"
        ) from error
    finally:
        model.train(training)
    labels = model.config.num_labels  # type: ignore[union-attr]
    if together.shape != (2, labels):
        raise ModelError(
            f"base model {base.name}: gives logits of shape {tuple(together.shape)} for 2 rows and {labels} labels; "
            "name another model"
        )
    if not torch.isfinite(together).all():
        raise ModelError(
            f"base model {base.name}: its logits of the longest row, of {texts.lengths.max()} tokens, are not "
            "finite; its weights may be broken: download the model again or name another"
        )
    config: Any = model.config
    pad = config.get_text_config().pad_token_id
    moved = float((together[1] - alone[0]).abs().max())
    if pad != tokenizer.pad_token_id and moved > SAME * max(1.0, float(alone.abs().max())):
        raise ModelError(
            f"base model {base.name}: takes padding for text, for its config.json has pad_token_id {pad} and its "
            f"tokenizer pads with {tokenizer.pad_token_id} ({tokenizer.pad_token}); write "
            f'"pad_token_id": {tokenizer.pad_token_id} into config.json'
        )
