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
    from tuning.trainable import run_trial

    record_worker_spans()
    with span(Cause.TRIAL):
        run_trial(config, data, setup)


def timed_prediction(*arguments: Any) -> Any:
    """lorasweep's look at the test split, its parts recorded where it runs: in the driver's process."""
    from tuning.tasks import predict_test

    record_worker_spans()
    return predict_test(*arguments)


def record_worker_spans() -> None:
    """Time what happens inside a trial."""
    from ray import tune
    from ray.train._internal.storage import StorageContext

    import training.fine_tune
    import tuning.tasks
    import tuning.trainable

    wrap(tuning.trainable, "prepare_worker", Cause.STARTING)
    wrap(tuning.trainable, "start_state", Cause.LOADING)
    wrap(tuning.trainable, "fine_tune", Cause.TRAINING, timed_steps)
    wrap(training.fine_tune, "predict_logits", Cause.EVALUATION)
    wrap(training.fine_tune, "score", Cause.EVALUATION)
    wrap(tuning.trainable, "write_checkpoint", Cause.CHECKPOINTS)
    wrap(tune, "report", Cause.REPORTING)
    wrap(StorageContext, "persist_current_checkpoint", Cause.CHECKPOINTS)
    wrap(tuning.tasks, "start_state", Cause.LOADING)
    wrap(tuning.tasks, "predict_logits", Cause.EVALUATION)


def record_driver_spans() -> None:
    """Time what the command does around its trials."""
    import ray.tune

    import tuning.cli
    import tuning.plan
    import tuning.sweep
    import tuning.tracking
    import tuning.tracking_thread
    import tuning.winner

    wrap(tuning.plan, "load_dataset", Cause.DATA)
    wrap(tuning.plan, "encode_dataset", Cause.ENCODING)
    wrap(tuning.plan, "load_tokenizer", Cause.LOADING)
    wrap(tuning.cli, "open_store", Cause.MLFLOW)
    wrap(tuning.sweep, "start_ray", Cause.RAY_START)
    wrap(ray.tune.Tuner, "fit", Cause.TRIALS)
    wrap(tuning.sweep, "choose_winner", Cause.WINNER)
    wrap(tuning.sweep, "_best_adapters", Cause.ADAPTERS)
    wrap(tuning.sweep, "stop_ray", Cause.RAY_END)
    # On its own thread, for which the command waits in the end.
    for name in ("start", "update", "finish"):
        wrap(tuning.tracking.Tracking, name, Cause.MLFLOW)
    wrap(tuning.tracking.Tracking, "_record_report", Cause.PLOTS)
    wrap(tuning.tracking_thread.TrackingThread, "finish", Cause.MLFLOW)
    for module, name, function in (
        (tuning.sweep, "run_trial", timed_trial),
        (tuning.winner, "predict_test", timed_prediction),
    ):
        setattr(module, name, function)


def propose(settings: Sequence[dict[str, Any]]) -> None:
    """Let each new sweep's study propose these settings first, as its start."""
    import tuning.sweep
    from tuning.study import open_study

    create_folder = tuning.sweep.create_folder

    def create(*arguments: Any, **named: Any) -> Any:
        folder = create_folder(*arguments, **named)
        study = open_study(folder.study_url, folder.name)
        for values in settings[1:]:
            study.enqueue_trial(values)
        return folder

    tuning.sweep.create_folder = create


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
    from tuning.quiet import quiet_environment
    from tuning.ray_access import guard_local_ray

    # As the command does, but before anything here imports Ray.
    quiet_environment()
    guard_local_ray(None)
    record_driver_spans()
    propose(shape.settings)
    from tuning.cli import main as lorasweep
    from tuning.record import SweepFolder

    sys.argv[1:] = command(shape, folder / "mlruns")
    try:
        lorasweep()
    except SystemExit as ended:
        if ended.code:
            raise
    trials = SweepFolder(folder / "mlruns", NAME).trials()
    outcome = {
        "best": max(trial.score for trial in trials if trial.score is not None),
        "tried": [{name: trial.settings[name] for name in shape.space} for trial in trials],
    }
    (folder / OUTCOME_FILE).write_text(json.dumps(outcome), encoding="utf-8")


if __name__ == "__main__":
    main()
