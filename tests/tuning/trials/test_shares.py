"""What a trial gets of a machine or a cluster: never more than there is; who asks for more is refused clearly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from lorasweep.training.devices import Card
from lorasweep.training.errors import SettingsError
from lorasweep.tuning.record.config import ResourceSettings
from lorasweep.tuning.trials.hardware import Node
from lorasweep.tuning.trials.shares import (
    Resources,
    check_resources,
    default_share,
    gpu_slots,
    resolve_resources,
)

GB = 10**9
H100 = Card("NVIDIA H100", (9, 0), 80 * GB)


def resolve(cpus: int, gpus: int, trials: int = 20, **settings: float | int) -> Resources:
    """Resolve settings on a machine."""
    return on_nodes([Node(cpus, gpus)], trials, **settings)


def on_nodes(nodes: Sequence[Node], trials: int = 1000, **settings: float | int) -> Resources:
    """Resolve settings on a cluster."""
    asked = ResourceSettings.model_validate(settings)
    check_resources(asked, nodes)
    return resolve_resources(asked, trials, nodes)


def test_whatever_is_asked_nothing_is_used_twice() -> None:
    """Threads × trials never exceed the cores, nor GPU shares the GPUs; at least one trial runs."""
    accepted = 0
    grid = itertools.product(
        (1, 2, 3, 7, 8, 64),
        (0, 1, 2, 8),
        (1, 3, 40),
        (None, 0, 0.3, 0.5, 1, 2),
        (None, 1, 4),
        (None, 1, 5),
    )
    for cpus, gpus, trials, share, cores, concurrency in grid:
        settings = ResourceSettings(gpus_per_trial=share, cpus_per_trial=cores, concurrency=concurrency)
        try:
            found = resolve_resources(settings, trials, [Node(cpus, gpus)])
        except SettingsError:
            explicit = cores is not None or concurrency is not None or bool(share)
            assert explicit, "nothing was asked for, so nothing may be refused"
            continue
        accepted += 1
        assert 1 <= found.concurrency <= trials
        assert found.cpus_per_trial >= 1
        assert found.cpus_per_trial * found.concurrency <= cpus, settings
        assert found.gpus_per_trial * found.concurrency <= gpus + 1e-9, settings
        assert share is None or found.gpus_per_trial == share
        assert cores is None or found.cpus_per_trial == cores
        assert concurrency is None or found.concurrency == min(concurrency, trials)
    assert accepted > 300


def test_defaults_use_the_machine() -> None:
    """Cores are dealt out whole; a GPU a trial; not more at once than there are trials."""
    assert resolve(2, 0) == Resources(2, 0, 1, 0.0, 2)
    assert resolve(64, 0) == Resources(64, 0, 16, 0.0, 4)
    assert resolve(64, 0, trials=1) == Resources(64, 0, 64, 0.0, 1)
    assert resolve(64, 8) == Resources(64, 8, 4, 1.0, 8)
    assert resolve(2, 8).concurrency == 2
    assert resolve(16, 1, gpus_per_trial=0) == Resources(16, 1, 4, 0.0, 4)


@pytest.mark.parametrize(
    ("share", "at_once"), [(0.5, 4), (0.25, 8), (0.3, 6), (0.1, 20), (1, 2), (2, 1), (0.6, 2)]
)
def test_fractions_of_gpus(share: float, at_once: int) -> None:
    """Two GPUs; 0.1 in binary must not cost a place, and no trial lies on two of them with 0.6."""
    assert resolve(64, 2, trials=40, gpus_per_trial=share).concurrency == at_once


@pytest.mark.parametrize(
    ("cpus", "gpus", "settings", "parts"),
    [
        (4, 0, {"gpus_per_trial": 1}, ("--gpus-per-trial 1", "0 GPUs", "0 to train on CPU")),
        (4, 2, {"gpus_per_trial": 3}, ("--gpus-per-trial 3", "2 GPUs")),
        (4, 2, {"gpus_per_trial": 1.5}, ("--gpus-per-trial 1.5", "whole number")),
        (4, 0, {"cpus_per_trial": 5}, ("--cpus-per-trial 5", "4 cores")),
        (
            64,
            2,
            {"gpus_per_trial": 0.5, "concurrency": 5},
            ("--concurrency 5", "2 GPUs hold 4 trials of 0.5"),
        ),
        (4, 0, {"concurrency": 5}, ("--concurrency 5", "needs a core", "there are 4")),
        (4, 0, {"concurrency": 64}, ("--concurrency 64", "there are 4")),
        (64, 2, {"concurrency": 64}, ("--concurrency 64", "2 GPUs hold 2 trials")),
        (4, 0, {"concurrency": 3, "cpus_per_trial": 2}, ("--concurrency 3", "--cpus-per-trial 2", "6 cores")),
    ],
)
def test_refusals(cpus: int, gpus: int, settings: dict[str, float], parts: tuple[str, ...]) -> None:
    """Each names the option, its value, and what there is, on one line."""
    with pytest.raises(SettingsError) as refused:
        resolve(cpus, gpus, **settings)
    for part in parts:
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)


def test_it_is_said_why_fewer_trials_run_at_once_than_were_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert resolve(64, 0, trials=3).concurrency == 3
    assert caplog.messages == []
    assert resolve(64, 0, trials=20, concurrency=64).concurrency == 20
    assert caplog.messages == ["concurrency 64: the sweep has 20 trials, so no more run at once"]


def fits(found: Resources, nodes: Sequence[Node]) -> int:
    """Trials that Ray can place at once: each on one node, a fraction on one GPU."""
    places = 0
    for node in nodes:
        free = [1.0] * node.gpus
        for _ in range(node.cpus // found.cpus_per_trial):
            whole = [number for number, left in enumerate(free) if left == 1.0]
            if found.gpus_per_trial >= 1:
                if len(whole) < found.gpus_per_trial:
                    break
                for number in whole[: int(found.gpus_per_trial)]:
                    free[number] = 0.0
            elif found.gpus_per_trial:
                number = next((n for n, left in enumerate(free) if left >= found.gpus_per_trial - 1e-9), None)
                if number is None:
                    break
                free[number] -= found.gpus_per_trial
            places += 1
    return places


def test_what_is_resolved_fits_the_nodes_at_once() -> None:
    """Else Ray would let trials wait for ever, and fewer run than the plan says."""
    accepted = 0
    clusters = [
        [Node(64, 0), *[Node(8, 8)] * 4],
        [Node(2, 8), Node(64, 8)],
        [Node(5, 0)] * 3,
        [Node(3, 0), Node(3, 0)],
        [Node(16, 1), Node(4, 2), Node(1, 0)],
        [Node(1, 4)],
    ]
    for nodes, share, cores, concurrency in itertools.product(
        clusters, (None, 0, 0.5, 0.3, 1, 2), (None, 1, 3), (None, 2, 7)
    ):
        asked = ResourceSettings(gpus_per_trial=share, cpus_per_trial=cores, concurrency=concurrency)
        try:
            check_resources(asked, nodes)
            found = resolve_resources(asked, 1000, nodes)
        except SettingsError:
            assert cores or concurrency or share, "nothing was asked for, so nothing may be refused"
            continue
        accepted += 1
        assert found.concurrency <= fits(found, nodes), (nodes, asked, found)
    assert accepted > 100


def test_every_gpu_of_a_cluster_works_though_the_head_has_most_cores() -> None:
    """Over the whole cluster 96 cores for 32 GPUs are 3 each, and then a node of 8 cores holds 2 trials."""
    assert on_nodes([Node(64, 0), *[Node(8, 8)] * 4]) == Resources(96, 32.0, 1, 1.0, 32)
    assert on_nodes([Node(2, 8), Node(64, 8)]) == Resources(66, 16.0, 1, 1.0, 10)
    assert on_nodes([Node(5, 0)] * 3) == Resources(15, 0.0, 2, 0.0, 4)


def test_one_trial_reserves_what_one_node_has() -> None:
    """Not all cores of the cluster: with two of them on two nodes it would wait for ever."""
    assert on_nodes([Node(1, 0)] * 2, concurrency=1) == Resources(2, 0.0, 1, 0.0, 1)
    assert on_nodes([Node(1, 1), Node(4, 0)]) == Resources(5, 1.0, 1, 1.0, 1)
    assert on_nodes([Node(1, 1), Node(4, 0)], gpus_per_trial=0, concurrency=1).cpus_per_trial == 4


@pytest.mark.parametrize(
    ("nodes", "settings", "message"),
    [
        ([Node(8, 1), Node(8, 1)], {"gpus_per_trial": 2}, "--gpus-per-trial 2: no node has more than 1 GPUs"),
        (
            [Node(8, 0), Node(4, 0)],
            {"cpus_per_trial": 9},
            "--cpus-per-trial 9: no node has more than 8 cores",
        ),
        ([Node(64, 0), Node(4, 1)], {"cpus_per_trial": 8}, "--cpus-per-trial 8: no node with 1 free GPUs"),
        (
            [Node(64, 0), Node(0, 1)],
            {},
            "--address: the nodes with GPUs have no cores, and a trial needs one",
        ),
        ([Node(64, 0), Node(4, 8)], {"concurrency": 5}, "there are 68 on 2 nodes; ask for at most 4"),
        (
            [Node(6, 0), Node(6, 0)],
            {"concurrency": 3, "cpus_per_trial": 4},
            "3 trials of --cpus-per-trial 4 need 12 cores, and there are 12 on 2 nodes, for 2 trials",
        ),
    ],
)
def test_what_no_node_can_hold_is_refused_at_once(
    nodes: list[Node], settings: dict[str, float], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        on_nodes(nodes, **settings)


HEAD = Node(0, 0)


@pytest.mark.parametrize(
    ("nodes", "coming", "settings", "found", "note"),
    [
        ([Node(2, 0)], (), {"concurrency": 2}, (1, 0.0, 2), None),
        ([Node(2, 0)], (), {"concurrency": 8}, (1, 0.0, 8), "the cluster holds 2 of 8 trials at once now"),
        ([Node(4, 0)], (), {"concurrency": 9, "cpus_per_trial": 2}, (2, 0.0, 9), "holds 2 of 9 trials"),
        ([Node(8, 2)], (), {"concurrency": 5}, (4, 1.0, 5), "holds 2 of 5 trials"),
        # A head that only plans, with an autoscaler that tells what it has, or does not.
        ([HEAD], (), {}, (1, 0.0, 4), "no room for a trial yet; trials start as nodes with 1 core join"),
        (
            [HEAD],
            (Node(16, 2), Node(64, 0)),
            {"gpus_per_trial": 0.5, "cpus_per_trial": 4, "concurrency": 6},
            (4, 0.5, 6),
            "as nodes with 0.5 GPU and 4 cores join",
        ),
        ([HEAD], (), {"gpus_per_trial": 8, "cpus_per_trial": 99}, (99, 8, 4), "8 GPU and 99 cores"),
        # The head trains, too, but what was asked for comes later.
        ([Node(2, 0)], (Node(16, 2),), {"gpus_per_trial": 1}, (1, 1, 4), "with 1 GPU and 1 core join"),
        ([Node(2, 0)], (Node(16, 2),), {}, (1, 0.0, 2), None),
    ],
)
def test_a_cluster_may_grow(
    nodes: list[Node],
    coming: tuple[Node, ...],
    settings: dict[str, float],
    found: tuple[int, float, int],
    note: str | None,
) -> None:
    asked = ResourceSettings.model_validate(settings)
    check_resources(asked, nodes, coming=coming)
    resources = resolve_resources(asked, 1000, nodes, coming=coming)
    assert (resources.cpus_per_trial, resources.gpus_per_trial, resources.concurrency) == found
    said = resources.growth_note(nodes)
    assert said is None if note is None else note in str(said)


@pytest.mark.parametrize(
    ("nodes", "coming", "settings"),
    [
        ([Node(2, 0)], (), {"gpus_per_trial": 1}),
        ([Node(2, 0)], (Node(8, 1),), {"gpus_per_trial": 2}),
        ([HEAD], (Node(8, 1),), {"cpus_per_trial": 9}),
        ([HEAD], (Node(8, 1), Node(16, 0)), {"cpus_per_trial": 9, "gpus_per_trial": 1}),
        ([HEAD], (), {"gpus_per_trial": 1.5}),
    ],
)
def test_what_no_node_of_a_growing_cluster_can_hold_is_refused(
    nodes: list[Node], coming: tuple[Node, ...], settings: dict[str, float]
) -> None:
    with pytest.raises(SettingsError, match="per-trial"):
        check_resources(ResourceSettings.model_validate(settings), nodes, coming=coming)


@pytest.mark.parametrize(
    ("nodes", "gigabytes", "settings", "share", "reason"),
    [
        ([Node(16, 1)], 2, {}, 0.25, "a trial may take 2.5 GB of a GPU's 80 GB"),
        ([Node(16, 2)], 2, {}, 0.5, "a trial may take 2.5 GB of a GPU's 80 GB"),
        ([Node(64, 8)], 2, {}, 1.0, "a trial may take 2.5 GB of a GPU's 80 GB"),
        # Three of 26.5 GB are more than 79 GB.
        ([Node(16, 1)], 26, {}, 0.3333, "a trial may take 26.5 GB of a GPU's 80 GB"),
        ([Node(16, 1)], 30, {}, 0.5, "a trial may take 30.5 GB of a GPU's 80 GB"),
        ([Node(16, 1)], 90, {}, 1.0, "90.5 GB of a GPU's 80 GB, and then computes a batch in parts"),
        ([Node(4, 1)], 2, {}, 0.5, "more on a GPU would need 2 cores each"),
        ([Node(64, 0), Node(2, 2), Node(0, 2)], 2, {}, 1.0, "more on a GPU would need 2 cores each"),
        ([Node(16, 1)], 2, {"cpus_per_trial": 8}, 0.5, "more on a GPU would need 8 cores each"),
        # Who asks for more trials at once than the default gets them if there is room.
        ([Node(16, 2)], 2, {"concurrency": 12}, 0.1666, "2.5 GB"),
        ([Node(16, 1)], 2, {"concurrency": 1}, 1.0, "2.5 GB"),
        (
            [Node(16, 1)],
            None,
            {},
            1.0,
            "a whole GPU each: what a trial takes of its memory cannot be foreseen",
        ),
    ],
)
def test_the_share_of_a_gpu_comes_from_its_memory_and_the_cores(
    nodes: list[Node], gigabytes: int | None, settings: dict[str, int], share: float, reason: str
) -> None:
    asked = ResourceSettings.model_validate(settings)
    size = None if gigabytes is None else gigabytes * GB
    found = default_share(asked, 20, nodes, [H100], size)
    assert found.gpus == pytest.approx(share)
    assert reason in found.reason
    assert "\n" not in found.reason
    resources = resolve_resources(asked, 20, nodes, found.gpus)
    assert resources.gpus_per_trial == found.gpus
    assert resources.concurrency <= fits(resources, nodes)


def test_the_smallest_gpu_decides_the_share() -> None:
    small = Card("NVIDIA L4", (8, 9), 24 * GB)
    found = default_share(ResourceSettings(), 20, [Node(32, 2)], [H100, small], 20 * GB)
    assert (found.gpus, found.reason) == (1.0, "a trial may take 20.5 GB of a GPU's 24 GB")


def test_so_many_shares_as_rays_rounding_allows() -> None:
    """Ray counts GPUs in 1/10000, rounded: shares of a seventh must not be more than a GPU."""
    for count in range(1, 40):
        asked = ResourceSettings(concurrency=count)
        share = default_share(asked, 1000, [Node(64, 1)], [H100], GB // 10).gpus
        assert round(share * 10_000) * count <= 10_000
        assert gpu_slots(1, share) >= count
