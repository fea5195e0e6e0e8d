"""Plans a sweep: resolves and checks data, model, space, resources and budget before the first trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from lorasweep.search_spaces.bases import base_models, settle_bases
from lorasweep.search_spaces.space import Space, load_space
from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.encoding import encode_for_bases
from lorasweep.training.data.load import load_dataset
from lorasweep.training.data.part import part_of
from lorasweep.training.inference.folder import quiet_loading
from lorasweep.training.loop.pace import Pace, measure_pace
from lorasweep.training.model.base_model import load_base
from lorasweep.training.model.fitting import check_rows, length_notes
from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.search.stopping import plan_budget
from lorasweep.tuning.storage.check import check_storage
from lorasweep.tuning.sweep.plan.bases import CheckedBases, check_quantize, common_precision, resolve_bases
from lorasweep.tuning.sweep.plan.judging import check_judging
from lorasweep.tuning.sweep.plan.node_pace import pace_on_node
from lorasweep.tuning.sweep.plan.plan import SweepPlan, trial_setup, untuned_settings
from lorasweep.tuning.sweep.plan.proposals import check_proposals, largest_trial
from lorasweep.tuning.trials.hardware import coming_nodes, find_hardware, find_nodes
from lorasweep.tuning.trials.probe import probe_nodes
from lorasweep.tuning.trials.shares import check_resources, default_share, resolve_resources

if TYPE_CHECKING:
    import pandas as pd

    from lorasweep.training.model.base_model import LoadedBase

SETS_METRIC = "micro_f1"
"""Ranks trials where a text may have several labels, unless another metric is named. Rare labels make macro-F1 a matter
of few rows, and subset accuracy stays 0 for long."""


def plan_sweep(
    config: SweepConfig,
    dataset: Dataset | None = None,
    space: Space | None = None,
    frames: Mapping[str, pd.DataFrame] | None = None,
    *,
    timed: bool = False,
) -> SweepPlan:
    """Resolve and check everything.

    Args:
        dataset: prepared rows; read from the configuration's files if None.
        space: the search space; loaded as `config.search.space` names it if None.
        frames: tables to read in place of the configuration's files; see `load_dataset`.
        timed: train a few steps, to know how long the sweep will take.

    Raises:
        LorasweepError: data, base model, target modules, space, storage or resources do not fit.
    """
    space = space or load_space(config.search.space)
    space, own = settle_bases(space, config.base_model, "base_model" in config.model_fields_set)
    if own != config.base_model:
        config = config.model_copy(update={"base_model": own})
    wanted, training = config.resources, config.training
    nodes, coming = find_nodes(wanted.address), coming_nodes(wanted.address)
    check_resources(wanted, nodes, coming=coming)
    # One that may grow will have several.
    check_storage(wanted.storage, len(nodes) + bool(coming) if wanted.address is not None else 1)
    bases = resolve_bases(space, own)
    base = bases[own]
    probed = probe_nodes(wanted, nodes, tuple(bases.values()), training.quantize)
    if probed.gone:
        nodes = tuple(node for node in nodes if node.id not in probed.gone)
        check_resources(wanted, nodes, coming=coming)
    hardware = find_hardware(wanted.address, nodes, wanted.gpus_per_trial, probed.hardware)
    amp = common_precision(hardware, training.precision, bases.values())
    if dataset is None:
        dataset = load_dataset(config.data, config.training.seed, frames)
    if dataset.multi_label and "metric" not in training.model_fields_set:
        # Nobody has asked for the default, which counts texts with exactly their labels.
        training = training.model_copy(update={"metric": SETS_METRIC})
        config = config.model_copy(update={"training": training})
    splits = {"validation": dataset.validation.labels, "test": dataset.test.labels}
    check_judging(config, dataset, splits)
    check_quantize(space, training.quantize, hardware, wanted.address)
    checked = CheckedBases(bases)
    if training.gradient_checkpointing:
        checked.check_checkpointing()
    limit = checked.most_tokens
    if "max_length" not in training.model_fields_set and limit is not None and limit < training.max_length:
        # Nobody has asked for the default.
        config = config.model_copy(update={"training": training.model_copy(update={"max_length": limit})})
    checked.check_length(config.training.max_length)
    adapted = checked.adapted_modules(space)
    for name, names in adapted.items():
        check_proposals(space, training, checked.models[name], names)
    encoded = encode_for_bases(
        dataset,
        checked.tokenizers[own],
        config.training.max_length,
        checked.others(),
        config.training.long,
    )
    proxy, labels = config.search.proxy, (encoded.train.labels, encoded.validation.labels)
    part = encoded.take(part_of(*labels, proxy, training.seed)) if proxy is not None else None
    if part is not None:
        check_judging(config, dataset, {"part's validation": part.validation.labels})
    share_asked = hardware.cards and wanted.gpus_per_trial is None
    parameters, needs, notes = {}, [], []
    for name in (*checked.others(), own):  # one after the other in memory; the sweep's own stays
        data = encoded.for_base(name)
        with quiet_loading():
            loaded = load_base(bases[name], dataset.label_names, training.seed, quantize=training.quantize)
        check_rows(loaded, checked.tokenizers[name], (data.train, data.validation, data.test))
        parameters[name] = loaded.parameters
        notes += length_notes(checked.models[name], bases[name], int(data.train.windows.lengths.max()))
        if share_asked:
            limited = training.micro_batch_size
            needs.append(largest_trial(space, loaded, data.train, adapted[name], amp, limited))
    gpu_share, reason = 1.0, ""
    if share_asked:
        needed = None if None in needs else max(need for need in needs if need is not None)
        share = default_share(wanted, config.search.trials, nodes, hardware.cards, needed)
        gpu_share, reason = share.gpus, share.reason
    resources = resolve_resources(wanted, config.search.trials, nodes, gpu_share, coming)
    budget = plan_budget(config.search, training.epochs, training.rungs)
    plan = SweepPlan(
        config,
        dataset,
        encoded,
        base,
        space,
        resources,
        hardware,
        amp,
        budget,
        adapted[own],
        reason,
        part=part,
        length_notes=notes,
        node_notes=probed.notes,
        bases=bases if base_models(space) else {},
        base_parameters=parameters,
    )
    return replace(plan, pace=_pace(plan, loaded)) if timed else plan


def _pace(plan: SweepPlan, loaded: LoadedBase) -> Pace | None:
    """Seconds that a row takes in a trial of the space's start; None where nothing can tell.

    On GPUs, which this process leaves alone, and in a cluster a Ray worker finds out.
    """
    starts = plan.space.start_points()
    hyperparameters = plan.space.hyperparameters(starts[0]) if starts else untuned_settings(plan)
    # The other base models are not known by their texts here.
    hyperparameters = hyperparameters.model_copy(update={"base_model": None})
    address, resources = plan.config.resources.address, plan.resources
    if address is not None or plan.hardware.cards:
        if not resources.fit(plan.hardware.nodes):
            return None
        return pace_on_node(address, resources, plan.encoded, trial_setup(plan, resources), hyperparameters)
    training, threads = plan.config.training, resources.cpus_per_trial
    try:
        with quiet_loading():
            return measure_pace(loaded, plan.encoded, hyperparameters, training, plan.amp, threads)
    except Exception:  # the model's own code, which raises whatever it likes; a trial would say so
        return None
