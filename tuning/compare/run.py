"""A comparison from its settings to its records: the sweeps it stands on, then row after row."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorasweep.training.data.encoding import EncodedDataset, encode_dataset
from lorasweep.training.data.load import Dataset, Texts, load_dataset
from lorasweep.training.errors import LorasweepError, SettingsError, SweepStoppedError
from lorasweep.training.loop.state import Evaluation
from lorasweep.training.model.base_model import load_tokenizer, resolve_base_model
from lorasweep.training.model.hub import BaseModel
from lorasweep.training.model.target_modules import PRESETS
from lorasweep.training.scores.scores import bootstrap_intervals
from lorasweep.training.settings import UNTUNED, Hyperparameters
from lorasweep.tuning.compare.process import RowTask, measure_apart, row_policy
from lorasweep.tuning.compare.record import (
    COSTS,
    ComparedRow,
    CompareSettings,
    ComparisonFolder,
    RowLatency,
    RowOperator,
    RowPlan,
)
from lorasweep.tuning.record.config import RegistrySettings, SearchSettings, SweepConfig
from lorasweep.tuning.record.folder import SweepFolder, now
from lorasweep.tuning.record.machine import machine, usable_cores
from lorasweep.tuning.sweep.after_trials import score_after_merging, score_test, unmerged_data

log = logging.getLogger("lorasweep")

FULL_SPACE, LORA_SPACE = "full_rate", "lora_rate"
# Called with a row, and what it is doing now.
Tell = Callable[[RowPlan, str], None]


@dataclass(frozen=True)
class Prepared:
    """What all rows share."""

    dataset: Dataset
    encoded: EncodedDataset
    base: BaseModel


def prepare(settings: CompareSettings, folder: ComparisonFolder, sweep: SweepFolder) -> Prepared:
    """Read, split and encode the rows once; those of an interrupted comparison are taken as they were.

    Raises:
        DataError: the files do not hold what the sweep read from them.
    """
    if folder.data.is_dir():
        dataset = Dataset.load(folder.data)
    elif settings.data is None:
        dataset = Dataset.load(sweep.data)
    else:
        dataset = load_dataset(settings.data, settings.training.seed)
    if not folder.data.is_dir():
        beside = folder.path / f".data.{os.getpid()}"
        dataset.save(beside)
        beside.rename(folder.data)
    base = resolve_base_model(settings.base_model)
    encoded = encode_dataset(dataset, load_tokenizer(base), settings.training.max_length)
    return Prepared(dataset, encoded, base)


def untuned_for(winner: Hyperparameters) -> Hyperparameters:
    """Rank, alpha and modules of the LoRA rows that nobody has tuned.

    Where the sweep needed a pattern of its own, as its model type has no presets, they have that one.
    """
    if winner.method == "full" or winner.target_modules in PRESETS:
        return UNTUNED
    return UNTUNED.model_copy(update={"target_modules": winner.target_modules})


def run_rows(
    plans: list[RowPlan],
    settings: CompareSettings,
    folder: ComparisonFolder,
    prepared: Prepared,
    tell: Tell,
) -> list[ComparedRow]:
    """Train and measure each row that is not on record yet, one after the other; each is kept when it is done.

    A row that fails has its reason on record, and the others go on. It is tried again by the next call. Where the
    machine has no AMP type, a row with AMP is the row without: it is not trained twice.
    """
    import torch

    known = folder.rows()
    found: list[ComparedRow] = []
    rungs = settings.training.rungs
    here = machine(cuda=torch.cuda.is_available())
    for plan in plans:
        row = known.get(plan.id)
        if row is not None and row.error is None and row.plan == plan:
            found.append(row)
            continue
        if same := _same(plan, row_policy(plan.precision, prepared.base.model_type).name, found):
            row = same.model_copy(update={"plan": plan, "same_as": same.plan.id, "started": same.ended})
            folder.write_row(row)
            found.append(row)
            continue
        tell(plan, "loading")

        def heard(evaluation: Evaluation, plan: RowPlan = plan) -> None:
            scores = f"validation {evaluation.scores.accuracy:.1%}"
            tell(plan, f"evaluation {evaluation.rung} of {rungs}, {scores}")

        dataset, data = prepared.dataset, prepared.encoded
        if plan.unmerged:
            data = unmerged_data(dataset, data)
        task = RowTask(
            prepared.base,
            data,
            plan.settings,
            settings.training,
            plan.precision,
            usable_cores(),
        )
        started = now()
        try:
            measured, precision = measure_apart(task, heard)
        except LorasweepError as error:
            row = ComparedRow(plan=plan, started=started, ended=now(), machine=here, error=str(error))
        else:
            row = ComparedRow(
                plan=plan,
                precision=precision,
                test=score_test(measured.logits, data.test.labels),
                merged=score_after_merging(dataset, measured.logits) if plan.unmerged else None,
                interval=bootstrap_intervals(measured.logits, data.test.labels),
                validation_score=measured.validation_score,
                train_rows=len(dataset.train),
                latencies=tuple(
                    RowLatency(form=entry.form, precision=entry.precision, **vars(entry.latency))
                    for entry in measured.latencies
                ),
                operators=tuple(RowOperator(**vars(use)) for use in measured.operators),
                machine=here,
                started=started,
                ended=now(),
                **{name: getattr(measured, name) for name in COSTS},
            )
        folder.write_row(row)
        found.append(row)
    return found


def _same(plan: RowPlan, precision: str, rows: list[ComparedRow]) -> ComparedRow | None:
    """A row that was trained with the same settings in the same precision."""
    asked = (precision, plan.settings, plan.unmerged)
    known = (row for row in rows if row.error is None)
    return next(
        (row for row in known if (row.precision, row.plan.settings, row.plan.unmerged) == asked), None
    )


def baseline_config(config: SweepConfig, settings: CompareSettings, space: str, method: str) -> SweepConfig:
    """The search of one baseline's learning rate, on the rows and with the budget of the sweep."""
    search = SearchSettings(space=space, trials=settings.baseline_trials)
    return config.model_copy(
        update={
            "name": f"{settings.name}-{method}-rate",
            "search": search,
            "choice": config.choice.model_copy(update={"confirm": None, "baselines": False}),
            "registry": RegistrySettings(enabled=False),
            "compare_untuned": False,
            "keep": 1,
        }
    )


def find_or_run(
    config: SweepConfig, mlruns: Path, drive: Callable[[SweepFolder, SweepConfig], Any]
) -> SweepFolder:
    """The sweep of a configuration, run or gone on with where it has not finished.

    Args:
        drive: runs a sweep to its end.

    Raises:
        SettingsError: a sweep of this name searched something else.
        SweepStoppedError: it was interrupted again.
    """
    folder = SweepFolder(mlruns, config.name)
    if folder.exists() and _searched(folder.config()) != _searched(config):
        raise SettingsError(
            f"sweep {config.name}: exists with other settings; choose another --name, or compare that one: "
            f"lorasweep compare --sweep {config.name}"
        )
    if not folder.exists() or folder.state() != "finished":
        drive(folder, config)
    if folder.state() != "finished":
        raise SweepStoppedError(f"sweep {config.name}: is {folder.state()}; the same command goes on with it")
    return folder


def _searched(config: SweepConfig) -> Mapping[str, Any]:
    return config.model_dump(include={"data", "base_model", "training", "search", "choice"})


def _texts(texts: Texts) -> set[tuple[str, str]]:
    return set(zip(texts.text, texts.pair or [""] * len(texts.text), strict=True))


def check_same_test(prepared: Prepared, sweep: SweepFolder) -> None:
    """Refuse to compare a winner that was chosen with other rows held out.

    Raises:
        SettingsError: a text of the comparison's test split was trained on, or looked at, by the sweep.
    """
    theirs = Dataset.load(sweep.data)
    held_out = _texts(prepared.dataset.test)
    for name in ("train", "validation"):
        if shared := len(_texts(theirs.splits()[name]) & held_out):
            raise SettingsError(
                f"sweep {sweep.name}: its {name} split has {shared} of the rows that are to test the "
                "comparison; give the data and the seed that the sweep was given"
            )
