"""Runs a planned sweep to its result: trials, winner, record; also from where it was interrupted."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray

from lorasweep.training.errors import LorasweepError, SweepStoppedError, first_line
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.finalists import comparable
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.listener import Listeners, StoreCopy, SweepListener
from lorasweep.tuning.record.reported import is_disk_full
from lorasweep.tuning.record.results import RegisteredVersion, SweepResult, SweepState
from lorasweep.tuning.record.stopwatch import stopwatch
from lorasweep.tuning.record.sweep import SweepRecord
from lorasweep.tuning.storage.storage import Storage
from lorasweep.tuning.sweep.estimate import make_limits
from lorasweep.tuning.sweep.plan.plan import SweepPlan
from lorasweep.tuning.sweep.rounds import no_space, reconcile_records, run_trials
from lorasweep.tuning.sweep.winner import phases
from lorasweep.tuning.sweep.winner.references import References
from lorasweep.tuning.sweep.winner.steps import optional_step
from lorasweep.tuning.sweep.winner.winner import choose_winner, tested_before
from lorasweep.tuning.trials.cluster import head_address, start_ray, stop_ray
from lorasweep.tuning.trials.head import head_watched

# The command line's exit code of what a user can mend.
STOPPED = 2

log = logging.getLogger("lorasweep")


def run_sweep(
    plan: SweepPlan,
    folder: SweepFolder,
    listeners: Sequence[SweepListener] = (),
    retry: Collection[str] = (),
) -> SweepResult:
    """Run a planned sweep in its folder, from the beginning or from where its records stand.

    Finished trials stay, unfinished ones continue from their last checkpoint, and the rest is proposed. Everything
    is written to the folder before a listener hears of it.

    Args:
        listeners: followers of the sweep. One that is an `StoreCopy` also registers the winner.
        retry: ids of trials that failed and are tried again.

    Returns:
        The result; `interrupted` after Ctrl-C.

    Raises:
        TrainingError: every trial failed, several in a row for the same reason, or the winner cannot be scored.
        SweepStoppedError: the disk is full; the sweep can be resumed when there is space.
        SettingsError: its folder on the storage belongs to another sweep.
    """
    earlier = folder.result()
    everyone = Listeners(listeners)
    known = _known_before(earlier)

    def result(state: SweepState, error: str | None = None) -> SweepResult:
        now = {"state": state, "error": error, "seconds": watch.seconds()}
        return SweepResult.model_validate({"metric": plan.config.training.metric, **known, **now})

    def give_up(stopped: SweepStoppedError) -> None:
        # All that is left to do: the main thread hangs, and Ray will end the process.
        end = result("interrupted", str(stopped))
        _write_end(folder, end)
        Listeners(one for one in listeners if not isinstance(one, StoreCopy)).end(end, {})
        print(f"lorasweep: {stopped}", file=sys.stderr, flush=True)
        os._exit(STOPPED)

    with folder.lock(), stopwatch(folder.path, earlier.seconds if earlier else 0.0) as watch:
        Storage.claim(folder)
        ended = result("interrupted")
        if earlier is not None:
            # It goes on: if it is killed from here on, it has neither finished nor failed.
            _write_end(folder, ended)
        try:
            steps = phases.steps_after_trials(plan, earlier)
            limits = make_limits(plan, steps, watch.seconds, known.get("stopped_by"))
            past, unfinished = reconcile_records(plan, folder, retry, limits)
            more = {"steps": [asdict(step) for step in steps], "spent": watch.seconds()}
            everyone.begin(plan.summary() | more, past)
            resources = plan.resources
            start_ray(plan.config.resources.address, resources.cpus, resources.gpus)
            head = None if plan.config.resources.address is None else head_address()
            again = folder.command("resume", "--address", "HOST:PORT")
            with head_watched(head, folder.name, again, give_up):
                data = ray.put(plan.encoded)
                references = References(plan, data, earlier)
                trials = run_trials(plan, folder, past, unfinished, everyone, references.begin, limits)
                known["stopped_by"] = limits.reason
                ended = result("interrupted")
                if trials:
                    choosing = choose_winner(plan, folder, data, trials, everyone.phase, earlier, references)
                    for fields in choosing:
                        new = "winner" not in known
                        known |= fields
                        _write_end(folder, result("interrupted"))
                        if new:
                            everyone.chosen(fields["winner"])
                    ended = result("finished")
        except LorasweepError as error:
            ended = result("interrupted" if isinstance(error, SweepStoppedError) else "failed", str(error))
            raise
        except KeyboardInterrupt:
            ended = result("interrupted")
        except Exception as error:
            if not is_disk_full(error):
                ended = result("failed", first_line(error))
                raise
            stopped = no_space(folder)
            ended = result("interrupted", str(stopped))
            raise stopped from error
        finally:
            watch.stop()
            copies = [listener for listener in listeners if isinstance(listener, StoreCopy)]
            others = [listener for listener in listeners if listener not in copies]
            adapters: dict[str, Path] = {}
            try:
                if ended.state == "finished":
                    # Its winner is on record. Until the exports are there, too, it can go on.
                    everyone.phase(phases.EXPORTING)
                    adapters, missing = _best_adapters(plan, folder, ended)
                    ended = ended.model_copy(update={"missing": ended.missing | missing})
                _write_end(folder, ended)
                everyone.phase(phases.PUBLISHING)
                Listeners(copies).end(ended, adapters)
                for copy in copies:
                    if copy.published and ended.state == "finished":
                        ended = register_winner(ended, plan.config, folder, copy.register, everyone.phase)
                        _write_end(folder, ended)
            finally:
                # Even after Ctrl-C: a display has to give the terminal its cursor back.
                Listeners(others).end(ended, adapters)
                stop_ray()
    return ended


def register_winner(
    result: SweepResult,
    config: SweepConfig,
    folder: SweepFolder,
    register: Callable[[str], RegisteredVersion],
    phase: Callable[[str], None],
) -> SweepResult:
    """The result of a sweep that MLflow has completely, with its winner registered if the settings say so.

    Args:
        register: makes the winner a version of the model of this name.
        phase: called with the present step.
    """
    result = result.model_copy(update={"published": True})
    if not config.registry.enabled or result.winner is None:
        return result
    phase(phases.REGISTERING)
    try:
        return result.model_copy(update={"registered": register(config.registered_name)})
    except Exception as error:  # the sweep is finished and on record, whatever happens here
        later = folder.command("register", "--name", config.registered_name)
        log.warning("the winner is not registered (%s); later: %s", first_line(error), later)
        log.debug("why the winner is not registered", exc_info=True)
        return result


def _known_before(earlier: SweepResult | None) -> dict[str, Any]:
    """What stays of the result of a sweep that goes on: test scores that were computed, and the search's end."""
    if earlier is None:
        return {}
    tested = tuple(tested_before(earlier))
    known = {"start": earlier.start, "untuned": earlier.untuned, "baselines": earlier.baselines}
    return {"also_tested": tested, "stopped_by": earlier.stopped_by, **known}


def _write_end(folder: SweepFolder, ended: SweepResult) -> None:
    with suppress(OSError):  # a full disk is reported already, and a sweep resumes without this file
        folder.write_result(ended)


def _best_adapters(
    plan: SweepPlan, folder: SweepFolder, result: SweepResult
) -> tuple[dict[str, Path], dict[str, str]]:
    """Export the best trials as verified adapter folders; and which exports failed, with the reasons."""
    from lorasweep.tuning.adapters.export.sweep import export_sweep

    missing: dict[str, str] = {}
    assert result.winner is not None
    sweep = SweepRecord(folder)
    kept = [trial for trial in sweep.ranked() if trial.checkpoint]
    best = [trial.id for trial in comparable(kept)][: plan.config.keep]
    adapters: dict[str, Path] = {}
    for left in (folder.path / "best").glob(".*"):  # by a process that was killed while it exported
        shutil.rmtree(left, ignore_errors=True)
    # A winner by size, speed or other seeds may not be among the best by score.
    for trial_id in dict.fromkeys((result.winner.id, *best)):
        out = folder.path / "best" / trial_id
        with optional_step(folder, f"exporting {trial_id}", missing):
            # Made before the sweep went on. Its trial may have gone on since, and its card says who has won.
            shutil.rmtree(out, ignore_errors=True)
            export_sweep(folder, out, trial=trial_id)
            adapters[trial_id] = out
    return adapters, missing
