"""One trial trained in four ways: as lorasweep does it, by transformers' Trainer, and by a notebook's loop.

Each starts from the same weights with an adapter of the same settings, and trains once over the same rows.
"""

from __future__ import annotations

import copy
import tempfile
import time
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from gemm import wait
from peft import LoraConfig, TaskType, get_peft_model
from rows import take
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments
from trial_task import Contender, Task

from lorasweep.training.data.encoded import EncodedTexts
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.model.classifier import build_classifier
from lorasweep.training.model.target_modules import target_pattern
from lorasweep.training.scores.scores import predict_logits
from lorasweep.training.settings import TrainingSettings


class Lorasweep(Contender):
    """As a sweep's trial does it."""

    name = "lorasweep"
    copies_base = False

    def build(self) -> nn.Module:
        task = self.task
        model = build_classifier(task.loaded, task.hyperparameters, self.seed, task.amp)
        self.state = TrainingState.start(model, task.hyperparameters, task.amp)
        return model

    def train(self) -> float:
        settings = TrainingSettings(epochs=1, evaluations_per_epoch=1, seed=self.seed)
        # The loop evaluates at its end, which its own count of seconds leaves out: a row is enough for that.
        data = replace(self.task.data, validation=take(self.task.data.validation, np.arange(1)))
        run = fine_tune(self.state, data, self.task.hyperparameters, settings)
        return len(self.rows) / next(run).samples_per_second

    def predict(self) -> tuple[np.ndarray, np.ndarray]:
        validation = self.task.data.validation
        return predict_logits(self.model, validation, self.task.amp), validation.labels


def peft_model(task: Task, seed: int) -> nn.Module:
    """The base model, its own dropout included, under an adapter of PEFT's own."""
    torch.manual_seed(seed)
    settings, loaded = task.hyperparameters, task.loaded
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=settings.rank,
        lora_alpha=cast(int, settings.alpha),
        lora_dropout=settings.dropout,
        target_modules=target_pattern(loaded.base.model_type, settings.target_modules),
        modules_to_save=list(loaded.missing),
    )
    return cast(nn.Module, get_peft_model(copy.deepcopy(loaded.model), config))


class TrainerDefaults(Contender):
    """Trainer as its documentation shows it: dynamic padding, and AMP."""

    name = "`Trainer`, defaults"

    def arguments(self) -> dict[str, Any]:
        """What is set beside the adapter's and the trial's own settings."""
        return {}

    def build(self) -> nn.Module:
        task, settings = self.task, self.task.hyperparameters
        model = peft_model(task, self.seed)
        self.folder = tempfile.TemporaryDirectory()
        arguments = TrainingArguments(
            output_dir=self.folder.name,
            per_device_train_batch_size=settings.batch_size,
            num_train_epochs=1,
            learning_rate=settings.learning_rate,
            bf16=task.amp.name == "bf16",
            fp16=task.amp.name == "fp16",
            use_cpu=task.amp.device.type == "cpu",
            seed=self.seed,
            label_names=["labels"],
            # Nothing that costs time beside training: no progress bar, no logs, no checkpoints.
            disable_tqdm=True,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            **self.arguments(),
        )
        # Rows as lists in memory: quicker than a `datasets.Dataset`, which reads each from an Arrow table.
        self.trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=cast(Any, as_lists(task.data.train)),
            processing_class=task.tokenizer,
            data_collator=DataCollatorWithPadding(task.tokenizer),
        )
        self.trainer.remove_callback(PrinterCallback)
        self.validation = as_lists(task.data.validation)
        return model

    def train(self) -> float:
        # Trainer's own count: from its first batch on, sampler and optimiser made before, to its last loss read.
        return float(self.trainer.train().metrics["train_runtime"])

    def predict(self) -> tuple[np.ndarray, np.ndarray]:
        output = self.trainer.predict(cast(Any, self.validation))
        self.folder.cleanup()
        return output.predictions, output.label_ids


class TrainerAtItsBest(TrainerDefaults):
    """Trainer with what it offers for speed, but for `torch_compile`: that takes tens of seconds for each shape."""

    name = "`Trainer`, at its best"

    def arguments(self) -> dict[str, Any]:
        return {
            # Sorts the rows of an evaluation by length too.
            "train_sampling_strategy": "group_by_length",
            "optim": "adamw_torch_fused",
            "per_device_eval_batch_size": 128,
            "bf16_full_eval": self.task.amp.name == "bf16",
            "fp16_full_eval": self.task.amp.name == "fp16",
            "logging_nan_inf_filter": False,
            "dataloader_pin_memory": self.task.amp.device.type == "cuda",
        }


class Notebook(Contender):
    """A plain loop: random batches, every row padded to one length, AMP."""

    name = "notebook loop"

    def build(self) -> nn.Module:
        task = self.task
        model = peft_model(task, self.seed).to(task.amp.device)
        self.optimizer = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=task.hyperparameters.learning_rate
        )
        if task.padded_rows is not None and task.padded_rows < len(self.rows):
            some = np.random.default_rng(self.seed).permutation(len(self.rows))[: task.padded_rows]
            self.rows = take(self.rows, some)
        self.batches = self._batches(self.rows, shuffle=True)
        return model.train()

    def train(self) -> float:
        device = self.task.amp.device
        scaler = self.task.amp.grad_scaler()
        wait(device)
        started = time.perf_counter()
        for ids, mask, types, labels in self.batches:
            with self.task.amp.autocast():
                loss = self.model(
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    token_type_ids=types.to(device),
                    labels=labels.to(device),
                ).loss
            scaler.scale(loss).backward()
            scaler.step(self.optimizer)
            scaler.update()
            self.optimizer.zero_grad()
        wait(device)
        return time.perf_counter() - started

    @torch.no_grad()
    def predict(self) -> tuple[np.ndarray, np.ndarray]:
        device = self.task.amp.device
        self.model.eval()
        logits, seen = [], []
        for ids, mask, types, labels in self._batches(self.task.data.validation, shuffle=False):
            with self.task.amp.autocast():
                output = self.model(
                    input_ids=ids.to(device), attention_mask=mask.to(device), token_type_ids=types.to(device)
                ).logits
            logits.append(output.float().cpu().numpy())
            seen.append(labels.numpy())
        return np.concatenate(logits), np.concatenate(seen)

    def _batches(self, texts: EncodedTexts, shuffle: bool) -> DataLoader[tuple[torch.Tensor, ...]]:
        length = self.task.padded_to
        ids = torch.full((len(texts), length), texts.pad_id)
        mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
        for row, entry in enumerate(as_lists(texts)):
            tokens = len(entry["input_ids"])
            ids[row, :tokens] = torch.tensor(entry["input_ids"])
            mask[row, :tokens] = 1
            types[row, :tokens] = torch.tensor(entry["token_type_ids"])
        rows = TensorDataset(ids, mask, types, torch.from_numpy(texts.labels))
        return DataLoader(rows, batch_size=self.task.hyperparameters.batch_size, shuffle=shuffle)


def as_lists(texts: EncodedTexts) -> list[dict[str, Any]]:
    """Rows as a tokenizer returns them."""
    bounds = zip(texts.offsets[:-1], texts.offsets[1:], strict=True)
    types = texts.type_ids if texts.type_ids is not None else np.zeros_like(texts.input_ids)
    return [
        {
            "input_ids": texts.input_ids[start:end].tolist(),
            "token_type_ids": types[start:end].tolist(),
            "attention_mask": [1] * int(end - start),
            "labels": int(label),
        }
        for (start, end), label in zip(bounds, texts.labels, strict=True)
    ]


CONTENDERS: tuple[type[Contender], ...] = (Lorasweep, TrainerDefaults, TrainerAtItsBest, Notebook)
