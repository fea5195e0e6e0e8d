"""A sweep as the documentations of Ray Tune, transformers and PEFT write it: the other side of `sweep.py`.

    python benchmarks/documented_sweep.py FOLDER

A function trainable builds tokenizer, model and `Trainer` for each trial, tokenises its rows and reports from a
`TrainerCallback`; `OptunaSearch` proposes, `ASHAScheduler` stops, `MLflowLoggerCallback` records. FOLDER has the shape
and the rows that `sweep.py` puts there. The `span` blocks and `record_spans` only measure.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray
import torch
from peft import LoraConfig, TaskType, get_peft_model
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from spans import Cause, span, wrap
from sweep_shape import Shape
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from lorasweep.training.data.dataset import ROWS_FILE
from lorasweep.training.model.target_modules import target_pattern
from lorasweep.training.settings import Hyperparameters
from lorasweep.tuning.search.asha import PatientBracket

METRIC = "eval_accuracy"
OUTCOME_FILE = "outcome.json"
# What every trial has beside the searched settings, as lorasweep's trials do.
SHARED = Hyperparameters()


class ReportCallback(TrainerCallback):
    """Tells Ray Tune of each evaluation, with the checkpoint that the `Trainer` has just written."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """Keep the scores until the checkpoint is there."""
        self.metrics = metrics

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        tune.report(dict(self.metrics), checkpoint=tune.Checkpoint.from_directory(folder))


def train(config: dict[str, Any], rows: pd.DataFrame, shape: Shape) -> None:
    """One trial."""
    record_spans()
    with span(Cause.TRIAL):
        torch.set_num_threads(shape.threads)
        set_seed(shape.seed)
        label_names = sorted(rows["label"].unique())
        with span(Cause.LOADING):
            tokenizer = AutoTokenizer.from_pretrained(shape.base_model)
            base = AutoModelForSequenceClassification.from_pretrained(
                shape.base_model, num_labels=len(label_names)
            )
            adapter = LoraConfig(
                task_type=TaskType.SEQ_CLS,
                r=config["rank"],
                lora_alpha=config["alpha"],
                target_modules=target_pattern(shape.model_type, config["target_modules"]),
            )
            model = get_peft_model(base, adapter)

        def encode(split: str) -> list[dict[str, Any]]:
            part = rows[rows["split"] == split]
            texts = [part[column].tolist() for column in ("text", "pair") if part[column].notna().all()]
            encoded = tokenizer(*texts, truncation=True, max_length=shape.max_length)
            labels = [label_names.index(label) for label in part["label"]]
            return [
                {name: encoded[name][row] for name in encoded} | {"labels": label}
                for row, label in enumerate(labels)
            ]

        with span(Cause.ENCODING):
            train_rows, validation_rows = encode("train"), encode("validation")
        arguments = TrainingArguments(
            output_dir="checkpoints",
            num_train_epochs=shape.epochs,
            learning_rate=config["learning_rate"],
            per_device_train_batch_size=shape.batch_size,
            per_device_eval_batch_size=shape.batch_size,
            weight_decay=SHARED.weight_decay,
            warmup_steps=SHARED.warmup,
            eval_strategy="steps",
            eval_steps=shape.rung_steps,
            save_strategy="steps",
            save_steps=shape.rung_steps,
            save_total_limit=1,
            bf16=shape.bf16,
            use_cpu=True,
            seed=shape.seed,
            report_to="none",
            disable_tqdm=True,
        )
        with span(Cause.LOADING):
            trainer = Trainer(
                model=model,
                args=arguments,
                train_dataset=train_rows,
                eval_dataset=validation_rows,
                processing_class=tokenizer,
                data_collator=DataCollatorWithPadding(tokenizer),
                compute_metrics=accuracy,
                callbacks=[ReportCallback()],
            )
        with span(Cause.TRAINING):
            trainer.train()


def accuracy(predictions: Any) -> dict[str, float]:
    """The share of rows whose likeliest class is the right one."""
    logits, labels = predictions
    return {"accuracy": float((np.argmax(logits, axis=-1) == labels).mean())}


def record_spans() -> None:
    """Time what libraries do inside a trial."""
    from ray.train._internal.storage import StorageContext

    wrap(Trainer, "evaluate", Cause.EVALUATION)
    wrap(Trainer, "_save_checkpoint", Cause.CHECKPOINTS)
    wrap(tune, "report", Cause.REPORTING)
    wrap(StorageContext, "persist_current_checkpoint", Cause.CHECKPOINTS)


def domain(entry: dict[str, list[Any]]) -> Any:
    """Ray Tune's domain for a searched hyperparameter of a space's file."""
    ((kind, values),) = entry.items()
    return tune.choice(values) if kind == "choice" else getattr(tune, kind)(*values)


def main() -> None:
    """Run the sweep of a folder, and keep what came of it."""
    folder = Path(sys.argv[1]).resolve()
    shape = Shape.read(folder)
    rows = pd.read_parquet(folder / ROWS_FILE)
    for name in ("setup", "log_trial_start", "log_trial_result", "log_trial_end"):
        wrap(MLflowLoggerCallback, name, Cause.MLFLOW)
    wrap(tune.Tuner, "fit", Cause.TRIALS)
    with span(Cause.MLFLOW):
        logger = MLflowLoggerCallback(
            tracking_uri=f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}", experiment_name="documented"
        )
    with span(Cause.RAY_START):
        ray.init(num_cpus=shape.concurrency * shape.threads)
    scheduler = ASHAScheduler(
        time_attr="training_iteration",
        max_t=shape.rungs,
        grace_period=shape.grace_rungs,
        reduction_factor=shape.reduction_factor,
    )
    # Ray's own rule stops a rung's second trial by the first one's score alone. With lorasweep's, which waits for a
    # few, both sweeps train about as much, and what is compared is how, not when, they stop.
    scheduler._brackets = [PatientBracket(shape.grace_rungs, shape.rungs, shape.reduction_factor, 0)]
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, rows=rows, shape=shape), {"cpu": shape.threads}),
        param_space={name: domain(entry) for name, entry in shape.space.items()},
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            search_alg=OptunaSearch(points_to_evaluate=shape.settings, seed=shape.seed),
            scheduler=scheduler,
            num_samples=len(shape.settings),
            max_concurrent_trials=shape.concurrency,
        ),
        run_config=tune.RunConfig(
            name="documented",
            storage_path=str(folder / "ray"),
            callbacks=[logger],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute=METRIC),
        ),
    )
    results = tuner.fit()
    best = results.get_best_result(METRIC, "max", scope="all")
    tried = [result.config for result in results if result.error is None]
    outcome = {"best": max(best.metrics_dataframe[METRIC]), "tried": tried}
    (folder / OUTCOME_FILE).write_text(json.dumps(outcome), encoding="utf-8")
    with span(Cause.RAY_END):
        ray.shutdown()


if __name__ == "__main__":
    main()
