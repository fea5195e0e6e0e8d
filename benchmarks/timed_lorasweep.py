"""lorasweep's own command with its time recorded by cause: one side of `sweep.py`.

    python benchmarks/timed_lorasweep.py FOLDER

Runs `lorasweep run` on the shape that `sweep.py` puts into FOLDER, with the shape's settings as the first trials.
Nothing of lorasweep is changed but that its functions are timed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spans import Cause, span, timed_steps, wrap
from sweep_shape import Shape

NAME = "timed"
OUTCOME_FILE = "outcome.json"


def timed_trial(config: dict[str, Any], data: Any, setup: Any) -> None:
    """lorasweep's trainable, its parts recorded in the worker."""
    from lorasweep.tuning.trials.trial import run_trial

    record_worker_spans()
    with span(Cause.TRIAL):
        run_trial(config, data, setup)


def timed_prediction(*arguments: Any) -> Any:
    """lorasweep's look at the test split, its parts recorded where it runs: in the driver's process."""
    from lorasweep.tuning.sweep.after_trials import predict_test

    record_worker_spans()
    return predict_test(*arguments)


def record_worker_spans() -> None:
    """Time what happens inside a trial."""
    from ray import tune
    from ray.train._internal.storage import StorageContext

    import lorasweep.training.loop.fine_tune
    import lorasweep.tuning.sweep.after_trials
    import lorasweep.tuning.trials.trial

    wrap(lorasweep.tuning.trials.trial, "prepare_worker", Cause.STARTING)
    wrap(lorasweep.tuning.trials.trial, "start_state", Cause.LOADING)
    wrap(lorasweep.tuning.trials.trial, "fine_tune", Cause.TRAINING, timed_steps)
    wrap(lorasweep.training.loop.fine_tune, "predict_logits", Cause.EVALUATION)
    wrap(lorasweep.training.loop.fine_tune, "score", Cause.EVALUATION)
    wrap(lorasweep.tuning.trials.trial, "write_checkpoint", Cause.CHECKPOINTS)
    wrap(tune, "report", Cause.REPORTING)
    wrap(StorageContext, "persist_current_checkpoint", Cause.CHECKPOINTS)
    wrap(lorasweep.tuning.sweep.after_trials, "start_state", Cause.LOADING)
    wrap(lorasweep.tuning.sweep.after_trials, "predict_logits", Cause.EVALUATION)


def record_driver_spans() -> None:
    """Time what the command does around its trials."""
    import ray.tune

    import lorasweep.tuning.sweep.plan
    import lorasweep.tuning.sweep.run
    import lorasweep.tuning.sweep.start
    import lorasweep.tuning.sweep.winner
    import lorasweep.tuning.tracking.thread
    import lorasweep.tuning.tracking.tracking

    wrap(lorasweep.tuning.sweep.plan, "load_dataset", Cause.DATA)
    wrap(lorasweep.tuning.sweep.plan, "encode_dataset", Cause.ENCODING)
    wrap(lorasweep.tuning.sweep.plan, "load_tokenizer", Cause.LOADING)
    wrap(lorasweep.tuning.sweep.start, "open_store", Cause.MLFLOW)
    wrap(lorasweep.tuning.sweep.run, "start_ray", Cause.RAY_START)
    wrap(ray.tune.Tuner, "fit", Cause.TRIALS)
    wrap(lorasweep.tuning.sweep.run, "choose_winner", Cause.WINNER)
    wrap(lorasweep.tuning.sweep.run, "_best_adapters", Cause.ADAPTERS)
    wrap(lorasweep.tuning.sweep.run, "stop_ray", Cause.RAY_END)
    # On its own thread, for which the command waits in the end.
    for name in ("start", "update", "finish"):
        wrap(lorasweep.tuning.tracking.tracking.Tracking, name, Cause.MLFLOW)
    wrap(lorasweep.tuning.tracking.tracking.Tracking, "_record_report", Cause.PLOTS)
    wrap(lorasweep.tuning.tracking.thread.TrackingThread, "finish", Cause.MLFLOW)
    for module, name, function in (
        (lorasweep.tuning.sweep.run, "run_trial", timed_trial),
        (lorasweep.tuning.sweep.winner, "predict_test", timed_prediction),
    ):
        setattr(module, name, function)


def propose(settings: Sequence[dict[str, Any]]) -> None:
    """Let each new sweep's study propose these settings first, as its start."""
    import lorasweep.tuning.sweep.start
    from lorasweep.tuning.search.study import open_study

    create_folder = lorasweep.tuning.sweep.start.create_folder

    def create(*arguments: Any, **named: Any) -> Any:
        folder = create_folder(*arguments, **named)
        study = open_study(folder.study_url, folder.name)
        for values in settings[1:]:
            study.enqueue_trial(values)
        return folder

    lorasweep.tuning.sweep.start.create_folder = create


def command(shape: Shape, mlruns: Path) -> list[str]:
    """The arguments of `lorasweep run` for a shape.

    Left out is what the other side has no counterpart for and an option turns off: linear models for comparison,
    the untuned settings, the model registry.
    """
    options = {
        "--name": NAME,
        "--mlruns": mlruns,
        "--space": "quickstart",
        "--trials": len(shape.settings),
        "--epochs": shape.epochs,
        "--evaluations-per-epoch": shape.evaluations_per_epoch,
        "--max-train-rows": shape.train_rows,
        "--max-validation-rows": shape.validation_rows,
        "--max-length": shape.max_length,
        "--grace-rungs": shape.grace_rungs,
        "--reduction-factor": shape.reduction_factor,
        "--seed": shape.seed,
        "--concurrency": shape.concurrency,
        "--cpus-per-trial": shape.threads,
        "--gpus-per-trial": 0,
    }
    switches = ["--no-baselines", "--no-compare-untuned", "--no-register"]
    return ["run", *(str(part) for option in options.items() for part in option), *switches]


def main() -> None:
    """Run the sweep of a folder, and keep what came of it."""
    folder = Path(sys.argv[1]).resolve()
    shape = Shape.read(folder)
    from lorasweep.tuning.quiet import quiet_environment
    from lorasweep.tuning.trials.ray_access import guard_local_ray

    # As the command does, but before anything here imports Ray.
    quiet_environment()
    guard_local_ray(None)
    record_driver_spans()
    propose(shape.settings)
    from lorasweep.tuning.command_line.main import main as lorasweep
    from lorasweep.tuning.record.folder import SweepFolder

    sys.argv[1:] = command(shape, folder / "mlruns")
    try:
        lorasweep()
    except SystemExit as ended:
        if ended.code:
            raise
    trials = SweepFolder(folder / "mlruns", NAME).trials()
    outcome = {
        "best": max(trial.score for trial in trials if trial.score is not None),
        "tried": [{name: getattr(trial.hyperparameters, name) for name in shape.space} for trial in trials],
    }
    (folder / OUTCOME_FILE).write_text(json.dumps(outcome), encoding="utf-8")


if __name__ == "__main__":
    main()
