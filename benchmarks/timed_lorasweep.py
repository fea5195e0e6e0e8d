"""lorasweep's own command with its time recorded by cause: one side of `sweep.py`.

    python benchmarks/timed_lorasweep.py FOLDER

Runs `lorasweep run` on the shape that `sweep.py` puts into FOLDER, with the shape's settings as the first trials.
Nothing of lorasweep is changed but that its functions are timed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from spans import Cause, span, timed_steps, wrap
from sweep_shape import SPACE, Shape

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
    from lorasweep.tuning.sweep.winner.after_trials import predict_test

    record_worker_spans()
    return predict_test(*arguments)


# What is timed inside a trial. Every name here is looked up by tests/benchmarks/test_patched_names.py.
WORKER_SPANS = {
    "lorasweep.tuning.trials.trial.prepare_worker": Cause.STARTING,
    "lorasweep.tuning.trials.trial.start_state": Cause.LOADING,
    "lorasweep.training.loop.fine_tune.predict_logits": Cause.EVALUATION,
    "lorasweep.training.scores.scorer.Scorer.score": Cause.EVALUATION,
    "lorasweep.tuning.trials.trial.write_checkpoint": Cause.CHECKPOINTS,
    "ray.tune.report": Cause.REPORTING,
    "ray.train._internal.storage.StorageContext.persist_current_checkpoint": Cause.CHECKPOINTS,
    "lorasweep.tuning.sweep.winner.after_trials.start_state": Cause.LOADING,
    "lorasweep.tuning.sweep.winner.after_trials.predict_logits": Cause.EVALUATION,
}
# Generators: what they take is the time from one item to the next.
TRAINING = "lorasweep.tuning.trials.trial.fine_tune"
WINNER = "lorasweep.tuning.sweep.run.choose_winner"
# What is timed around the trials. MLflow has its own thread, for which the command waits at the end.
DRIVER_SPANS = {
    "lorasweep.tuning.sweep.plan.planning.load_dataset": Cause.DATA,
    "lorasweep.tuning.sweep.plan.planning.encode_for_bases": Cause.ENCODING,
    "lorasweep.tuning.sweep.plan.planning.CheckedBases": Cause.LOADING,
    "lorasweep.tuning.sweep.plan.planning.load_base": Cause.LOADING,
    "lorasweep.tuning.sweep.plan.planning.check_rows": Cause.LOADING,
    "lorasweep.tuning.sweep.start.open_store": Cause.MLFLOW,
    "lorasweep.tuning.sweep.run.start_ray": Cause.RAY_START,
    "ray.tune.Tuner.fit": Cause.TRIALS,
    "lorasweep.tuning.sweep.run._best_adapters": Cause.ADAPTERS,
    "lorasweep.tuning.sweep.run.stop_ray": Cause.RAY_END,
    "lorasweep.tuning.tracking.copy._copy_report": Cause.PLOTS,
    "lorasweep.tuning.tracking.thread.copy_sweep": Cause.MLFLOW,
    "lorasweep.tuning.tracking.thread.MLflowCopy.end": Cause.MLFLOW,
}
# What stands in for a function, so that the worker records its own spans.
REPLACED = {
    "lorasweep.tuning.sweep.rounds.run_trial": timed_trial,
    "lorasweep.tuning.sweep.winner.winner.predict_test": timed_prediction,
}
CREATE_FOLDER = "lorasweep.tuning.sweep.start.create_folder"


def replace(path: str, function: Callable[..., Any]) -> None:
    """Put a function in the place of another one.

    Raises:
        AttributeError: there is nothing of this name to replace.
    """
    owner, _, name = path.rpartition(".")
    resolve_name(path)
    setattr(resolve_name(owner), name, function)


def record(spans: Mapping[str, Cause], *how: Callable[..., Any]) -> None:
    """Time functions by their paths."""
    for path, cause in spans.items():
        owner, _, name = path.rpartition(".")
        wrap(resolve_name(owner), name, cause, *how)


def record_worker_spans() -> None:
    """Time what happens inside a trial."""
    record(WORKER_SPANS)
    record({TRAINING: Cause.TRAINING}, timed_steps)


def record_driver_spans() -> None:
    """Time what the command does around its trials."""
    record(DRIVER_SPANS)
    record({WINNER: Cause.WINNER}, timed_steps)
    for path, function in REPLACED.items():
        replace(path, function)


def propose(settings: Sequence[dict[str, Any]]) -> None:
    """Let each new sweep's study propose these settings first, as its start."""
    from lorasweep.tuning.search.study import open_study

    create_folder = resolve_name(CREATE_FOLDER)

    def create(*arguments: Any, **named: Any) -> Any:
        folder = create_folder(*arguments, **named)
        study = open_study(folder.study_url, folder.name)
        for values in settings[1:]:
            study.enqueue_trial(values)
        return folder

    replace(CREATE_FOLDER, create)


def command(shape: Shape, mlruns: Path) -> list[str]:
    """The arguments of `lorasweep run` for a shape.

    Left out is what the other side has no counterpart for and an option turns off: linear models for comparison,
    the untuned settings, the model registry.
    """
    options = {
        "--name": NAME,
        "--mlruns": mlruns,
        "--space": SPACE,
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
    from lorasweep.command_line.main import main as lorasweep
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
