"""A small finished sweep, really trained, with labels, columns and a file as a test wants them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from lorasweep.training.data.encoding import encode_dataset
from lorasweep.training.data.load import load_dataset
from lorasweep.training.inference.folder import quiet_loading
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.model.base_model import load_base, load_tokenizer, resolve_base_model
from lorasweep.training.model.classifier import build_classifier, trainable_parameters
from lorasweep.training.model.precision import AmpPolicy
from lorasweep.training.settings import UNTUNED, DataSettings, Hyperparameters, Method, TrainingSettings
from lorasweep.tuning.record.config import SearchSettings, SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.results import Reference, SweepResult, TestScores, Winner
from lorasweep.tuning.record.trial_records import TrialRecord

SETTINGS = TrainingSettings(epochs=1, evaluations_per_epoch=2, max_length=16, precision="fp32")
# Names that Markdown, YAML or a template would read as more than names.
LABELS = ("<b>health</b>", "arts | *film*", "{{ money }}: #1")
METHODS: dict[str, Method] = {"t000": "lora", "t001": "full"}


def write_rows(path: Path, labels: Sequence[str], columns: Sequence[str]) -> Path:
    """180 rows; the columns are those of two texts and of the label."""
    words = ("film star award album", "markets bank shares rally", "vaccine doctors study trial")
    random = np.random.default_rng(0)
    rows = []
    for number in range(180):
        drawn = random.choice([*words[number % 3].split(), "new", "city", "team"], size=5)
        texts = (" ".join(drawn), f"{random.choice(drawn)} {number}", labels[number % len(labels)])
        rows.append(json.dumps(dict(zip(columns, texts, strict=True))))
    path.write_text("\n".join(rows))
    return path


def finished_sweep(
    root: Path,
    base_folder: Path,
    labels: Sequence[str] = LABELS,
    columns: Sequence[str] = ("head_line", "body", "kind"),
    file: str = "rows.jsonl",
    training: TrainingSettings = SETTINGS,
) -> SweepFolder:
    """A sweep `news_1` of two trained trials and one that failed; t000 has won, with scores made up."""
    base_folder = shutil.copytree(base_folder, root / "base")
    text_settings = DataSettings(
        path=str(write_rows(root / file, labels, columns)), text=columns[:2], label=columns[2]
    )
    config = SweepConfig(
        name="news_1",
        data=text_settings,
        base_model=str(base_folder),
        training=training,
        search=SearchSettings(trials=3, space="lora_cpu"),
    )
    folder = SweepFolder(root / "mlruns", "news_1")
    folder.create(config)
    dataset = load_dataset(text_settings, seed=0)
    dataset.save(folder.data)
    base = resolve_base_model(str(base_folder))
    encoded = encode_dataset(dataset, load_tokenizer(base), training.max_length, training.long)
    amp = AmpPolicy("fp32", torch.device("cpu"))
    folder.write_plan({"precision": "fp32", "device": "cpu"})
    with quiet_loading():
        loaded = load_base(base, dataset.label_names, 0, amp.device)
    for number, (trial, method) in enumerate(METHODS.items()):
        hyperparameters = Hyperparameters(method=method, rank=4, learning_rate=0.01, batch_size=16)
        model = build_classifier(loaded, hyperparameters, 0, amp)
        state = TrainingState.start(model, hyperparameters, amp)
        checkpoint = folder.ray / trial / "checkpoint"
        evaluations = []
        for evaluation in fine_tune(state, encoded, hyperparameters, training):
            evaluations.append(evaluation.to_dict())
            if evaluation.rung == 1:  # the best one need not be the last
                state.save(checkpoint)
                save_file({"logits": evaluation.logits[:256]}, checkpoint / "probe.safetensors")
        folder.write_trial(
            TrialRecord(
                id=trial,
                number=number,
                state="completed",
                hyperparameters=hyperparameters,
                searched=("rank", "learning_rate"),
                evaluations=tuple(evaluations),
                score=evaluations[0]["accuracy"],
                best_rung=1,
                trainable_parameters=trainable_parameters(model),
                checkpoint=str(checkpoint),
                seconds=65.0,
            )
        )
    folder.write_trial(TrialRecord(id="t002", number=2, state="failed", hyperparameters=Hyperparameters()))
    winner = folder.trials()[0]
    scores = TestScores(accuracy=0.875, macro_f1=0.75, loss=0.5)
    untuned = TestScores(accuracy=0.25, macro_f1=0.125, loss=1.5)
    folder.write_result(
        SweepResult(
            state="finished",
            metric="accuracy",
            seconds=3700.0,
            winner=Winner(
                id="t000",
                score=winner.score or 0,
                hyperparameters=winner.hyperparameters,
                test=scores,
                interval={"accuracy": (0.75, 1.0), "macro_f1": (0.5, 0.875), "loss": (0.25, 0.75)},
            ),
            baselines={"majority class": untuned},
            untuned=Reference(hyperparameters=UNTUNED, score=0.2, test=untuned, seconds=1),
        )
    )
    return folder


def copy_sweep(finished: SweepFolder, mlruns: Path) -> SweepFolder:
    """A copy to damage, with checkpoints of its own."""
    shutil.copytree(finished.mlruns, mlruns)
    folder = SweepFolder(mlruns, finished.name)
    for trial in folder.trials():
        if trial.checkpoint:
            path = str(folder.ray / trial.id / "checkpoint")
            folder.write_trial(trial.model_copy(update={"checkpoint": path}))
    return folder
