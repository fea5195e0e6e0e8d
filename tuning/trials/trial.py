"""The function that Ray Tune runs: a thin bridge from `fine_tune` to `tune.report`."""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.fs
import torch
from ray import tune
from safetensors import SafetensorError

from lorasweep.training.data.encoded import EncodedDataset
from lorasweep.training.devices import (
    begin,
    choose_device,
    release,
    reserved_device,
    trim_host_memory,
)
from lorasweep.training.errors import LorasweepError, ModelError, SettingsError, first_line
from lorasweep.training.loop.best import Best
from lorasweep.training.loop.fine_tune import fine_tune
from lorasweep.training.loop.out_of_memory import no_memory_for
from lorasweep.training.loop.state import TrainingState
from lorasweep.training.model.base_model import LoadedBase, load_base
from lorasweep.training.model.classifier import build_classifier, model_parameters, trainable_parameters
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.model.precision import AmpPolicy, resolve_precision
from lorasweep.training.scores.noise import standard_error
from lorasweep.training.scores.scorer import Scorer
from lorasweep.training.settings import Hyperparameters, Metric, TrainingSettings
from lorasweep.tuning.record.ran_on import this_process
from lorasweep.tuning.record.reported import (
    BEST_FILE,
    BEST_RUNG,
    DISK_FULL,
    ERROR,
    NODE_ID,
    OBJECTIVE,
    RAN_ON,
    RUNG,
    SCORE,
    is_disk_full,
)
from lorasweep.tuning.record.trial_records import EvaluationRecord
from lorasweep.tuning.storage.filesystem import filesystem_at
from lorasweep.tuning.trials.base_cache import BaseCache
from lorasweep.tuning.trials.checkpoints import open_checkpoint, write_checkpoint
from lorasweep.tuning.trials.faults import NOT_SHARED, NodeError, NodeFailedError, reason_of
from lorasweep.tuning.trials.node_watch import GIVEN_UP, PAUSE
from lorasweep.tuning.trials.place import this_place
from lorasweep.tuning.trials.system_metrics import monitored


@dataclass(frozen=True)
class TrialSetup:
    """What all trials of a sweep share, besides the encoded texts.

    Attributes:
        training_settings: with their precision resolved: on each node `auto` may be another.
        threads: CPU threads of a trial.
        gpu_share: GPUs of a trial; a fraction also limits its share of the GPU's memory.
        objective: what stops trials and guides the sampler; the metric if None.
        storage: checkpoint storage shared by the nodes of a cluster, or None.
        system_metrics: whether to measure resource use.
        bases: name → base model, where trials choose it.
        threshold: by what the thresholds of several labels a text are chosen.
    """

    base: BaseModel
    training_settings: TrainingSettings
    threads: int
    gpu_share: float
    objective: Metric | None = None
    storage: str | None = None
    system_metrics: bool = False
    threshold: str | None = None
    bases: Mapping[str, BaseModel] = field(default_factory=dict)

    def base_of(self, hyperparameters: Hyperparameters) -> BaseModel:
        """A trial's base model: the sweep's own unless it chooses another.

        Raises:
            ModelError: the plan has not checked it, and there are no tokens for it.
        """
        name = hyperparameters.base_model
        if name is None:
            return self.base
        if name not in self.bases:
            raise ModelError(
                f"base_model: {name} is none of those that the plan has found in the space "
                f"({', '.join(self.bases) or 'it names none'}); let it suggest them with trial.suggest_categorical"
            )
        return self.bases[name]

    def scorer(self, label_names: tuple[str, ...]) -> Scorer:
        """Scores predictions of these labels by metric, objective, and all other metrics of the task."""
        settings = self.training_settings
        scorer = Scorer.of(label_names, settings.positive, settings.metric, self.objective or settings.metric)
        return replace(scorer, rule=self.threshold)


def run_trial(config: dict[str, Any], data: EncodedDataset, setup: TrialSetup) -> None:
    """Train one proposal; report the best so far by metric and objective at each rung, with a checkpoint.

    Continues from the trial's last checkpoint if it has one. Errors that a retry cannot fix, such as a loss that is
    not finite, end the trial with one line under `error`.

    Raises:
        NodeFailedError: the node is to blame; the trial may go on elsewhere, or later.
    """
    if GIVEN_UP in config:
        # It failed as often as it may; Ray, which restarts all that break, learns it so.
        tune.report({ERROR: config[GIVEN_UP], RUNG: 0})
        return
    time.sleep(config.get(PAUSE, 0.0))
    try:
        # Where fewer rows at once do not help, another try would fail as well.
        with no_memory_for("a trial"):
            _train_and_report(config, data, setup)
    except NodeError as error:
        raise NodeFailedError.at(this_place(), str(error)) from error
    except LorasweepError as error:
        tune.report({ERROR: str(error), RUNG: 0})
    except Exception as error:
        if isinstance(error, OSError | SafetensorError) and is_disk_full(error):
            tune.report({ERROR: f"{DISK_FULL}: {error}", RUNG: 0})
            return
        reason = reason_of(error)
        if reason is None:
            raise
        raise NodeFailedError.at(this_place(), reason) from error


def _train_and_report(config: dict[str, Any], data: EncodedDataset, setup: TrialSetup) -> None:
    device = prepare_worker(setup)
    hyperparameters = Hyperparameters(**config["hyperparameters"])
    data = data.for_base(hyperparameters.base_model)
    metric = setup.training_settings.metric
    state = start_state(data, setup, hyperparameters, device)
    best, objective = Best(metric), Best(setup.objective or metric)
    checkpoint = tune.get_checkpoint() or open_checkpoint(config.get("checkpoint"), setup.storage)
    lost = ""
    if checkpoint is not None:
        try:
            best, objective = _go_on(state, checkpoint, best, objective)
        except (ModelError, FileNotFoundError, ValueError, KeyError) as error:
            lost = first_line(error)
    if lost:
        check_storage(setup.storage, lost)
        # Gone or cut off, as on a disk that was full. Evaluations on record count, so only time is lost.
        del state  # its memory is needed
        state = start_state(data, setup, hyperparameters, device)
        state.add_note(f"began anew: its checkpoint cannot be read ({lost})")
    parameters = {
        "trainable_parameters": trainable_parameters(state.model),
        "parameters": model_parameters(state.model),
    }
    scorer = setup.scorer(data.label_names)
    place = this_place()
    ran_on = {RAN_ON: this_process(state.amp, place.address).model_dump(), NODE_ID: place.id}
    # A trial killed between an evaluation's record and its checkpoint repeats that evaluation. The recorded one
    # counts: MLflow and Optuna have it, and a GPU may not reproduce it to the last digit.
    recorded = {int(entry["rung"]): EvaluationRecord(**entry) for entry in config.get("evaluations") or ()}
    for evaluation, system in monitored(
        fine_tune(state, data, hyperparameters, setup.training_settings, scorer=scorer),
        device if setup.system_metrics else None,
    ):
        on_record = recorded.get(evaluation.rung)
        scores = on_record or evaluation.scores
        score, judged = scores.by(best.metric), scores.by(objective.metric)
        assert score is not None
        assert judged is not None
        outcomes = scorer.outcomes(evaluation.logits, data.validation.labels).kept()
        best.update(score, evaluation.rung)
        objective.update(judged, evaluation.rung)
        with tempfile.TemporaryDirectory(prefix="lorasweep-") as temporary:
            write_checkpoint(state, evaluation, outcomes, best, objective, Path(temporary))
            _report(
                {
                    SCORE: best.score,
                    OBJECTIVE: objective.score,
                    RUNG: evaluation.rung,
                    BEST_RUNG: best.rung,
                    "evaluation": (
                        on_record
                        or EvaluationRecord.of(
                            evaluation,
                            best.score,
                            objective.score,
                            system,
                            standard_error(outcomes, best.metric),
                        )
                    ).model_dump(),
                    **parameters,
                    "notes": list(state.notes),
                    **ran_on,
                },
                checkpoint=tune.Checkpoint.from_directory(temporary),
            )


def _report(result: dict[str, Any], checkpoint: tune.Checkpoint) -> None:
    """Report a rung once its checkpoint is on the storage.

    Raises:
        NodeError: it cannot be written there.
        OSError: the disk is full.
    """
    try:
        tune.report(result, checkpoint=checkpoint)
    except (OSError, RuntimeError) as error:
        if is_disk_full(error):
            raise
        why = "the sweep's folder is not there" if NOT_SHARED in str(error) else first_line(error)
        raise NodeError(f"a checkpoint cannot be written to the storage ({why})") from error


def check_storage(storage: str | None, lost: str) -> None:
    """Raise `NodeError` where a checkpoint cannot be read because the whole storage is away."""
    if storage is None or ("://" not in storage and not Path(storage).is_absolute()):
        return
    filesystem, root = filesystem_at(storage)
    if filesystem.get_file_info(root).type != pyarrow.fs.FileType.Directory:
        raise NodeError(f"the storage {storage} is away, and with it a checkpoint ({lost})")


def _go_on(
    state: TrainingState, checkpoint: tune.Checkpoint, best: Best, objective: Best
) -> tuple[Best, Best]:
    """Put a checkpoint into a trial's state, and return the best evaluations that it knows."""
    with checkpoint.as_directory() as folder:
        state.load(Path(folder))
        stored = json.loads((Path(folder) / BEST_FILE).read_text())
    # Sweeps from before there was an objective were judged by their metric.
    judged = float(stored.get(OBJECTIVE, stored[SCORE]))
    rung = int(stored[RUNG])
    return Best(best.metric, float(stored[SCORE]), rung), Best(objective.metric, judged, rung)


def start_state(
    data: EncodedDataset, setup: TrialSetup, hyperparameters: Hyperparameters, device: torch.device
) -> TrainingState:
    """A trial's initial state: a fresh adapter on the worker's base model.

    Raises:
        NodeError: the base model cannot be read here.
        TrainingError: memory is too small for one of its parts.
    """
    settings, base = setup.training_settings, setup.base_of(hyperparameters)
    amp = resolve_precision(settings.precision, device, base.model_type)
    weights = f"the weights of {base.name}"
    with no_memory_for(weights):
        try:
            loaded = worker_base(base, data.label_names, settings, amp)
        except (ModelError, OSError) as error:
            # The plan has read it, elsewhere.
            raise NodeError(f"base model {base.location} cannot be read ({first_line(error)})") from error
    with no_memory_for(f"{weights} on {device}"):
        checkpointing = settings.gradient_checkpointing
        model = build_classifier(loaded, hyperparameters, settings.seed, amp, checkpointing=checkpointing)
    with no_memory_for(f"gradients and moments of {trainable_parameters(model):,} trained weights"):
        return TrainingState.start(model, hyperparameters, amp)


def worker_base(
    base: BaseModel, label_names: tuple[str, ...], settings: TrainingSettings, amp: AmpPolicy
) -> LoadedBase:
    """The base model as the trials of this process share it: as they store it, kept from one to the next."""
    stored = () if settings.quantize is None else (amp.device, settings.quantize, amp.dtype)
    return loaded_base(base, label_names, settings.seed, *stored)


def prepare_worker(setup: TrialSetup) -> torch.device:
    """Set up this process for one trial: threads, quiet libraries, its share of a GPU.

    Raises:
        NodeError: torch cannot use the GPU that Ray has reserved.
    """
    from lorasweep.tuning.quiet import quiet_libraries

    quiet_libraries()
    # What the trial before has left in this process.
    trim_host_memory()
    torch.set_num_threads(setup.threads)
    try:
        device = reserved_device(setup.gpu_share)
    except SettingsError as error:
        raise NodeError(str(error)) from error
    # Ray only counts fractions of a GPU; nothing else keeps one trial from taking all of its memory.
    begin(device, setup.gpu_share)
    return device


def leave_worker(gpu_share: float) -> None:
    """Give back what a training has taken of a GPU, where its process lives on; a base model on the CPU stays."""
    if gpu_share > 0:
        loaded_base.cache_clear()
        gc.collect()  # models refer to themselves
        release(choose_device("auto", 0))


# They stay on the CPU, where the processes of a machine share them.
loaded_base = BaseCache(lambda *arguments: load_base(*arguments))
