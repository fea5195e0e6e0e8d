"""How failures of nodes are counted: pauses that grow, nodes that are avoided, and the end of the tries."""

from __future__ import annotations

import pickle

import pytest
from ray import tune

from lorasweep.tuning.record.reported import AVOID
from lorasweep.tuning.trials.faults import Fault
from lorasweep.tuning.trials.node_watch import PAUSES, NodeWatch, placement


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def fault(node: str) -> Fault:
    return Fault(node, f"{node} (10.0.0.1)", "base model cannot be read")


def watch_of(*nodes: str) -> tuple[NodeWatch, Clock]:
    clock = Clock()
    return NodeWatch(lambda: nodes, clock), clock


def test_a_trial_waits_longer_each_time_and_then_no_more() -> None:
    """Long enough for a storage that is away for a minute; an evaluation begins the count anew."""
    watch, _ = watch_of("a")
    assert [watch.failed("t000", fault("a")) for _ in PAUSES] == list(PAUSES)
    assert watch.tries("t000") == len(PAUSES)
    assert watch.failed("t001", fault("a")) == PAUSES[0], "another trial's tries are its own"
    assert watch.failed("t000", fault("a")) is None
    watch.went_well("t000", "a")
    assert watch.failed("t000", fault("a")) == PAUSES[0]
    assert sorted(PAUSES) == list(PAUSES)
    assert sum(PAUSES) > 120


def test_a_node_that_fails_is_avoided_for_longer_each_time() -> None:
    watch, clock = watch_of("a", "b", "c")
    assert watch.avoided() == ()
    watch.failed("t000", fault("b"))
    assert watch.avoided() == ("b",)
    first = 2 * PAUSES[0]
    clock.now = first + 0.1
    assert watch.avoided() == (), "it is tried again"
    watch.failed("t001", fault("b"))
    clock.now += first + 0.1
    assert watch.avoided() == ("b",)
    watch.went_well("t002", "a")
    assert watch.avoided() == ("b",), "successes elsewhere say nothing of it"
    watch.went_well("t002", "b")
    assert watch.avoided() == ()


def test_where_all_nodes_fail_none_is_avoided() -> None:
    """As when the storage is away. A node that could hold no trial does not count, nor does one that is not known."""
    watch, _ = watch_of("a", "b")
    watch.failed("t000", fault("a"))
    watch.failed("t000", fault("gone"))
    watch.failed("t000", fault(""))
    assert watch.avoided() == ("a",)
    watch.failed("t001", fault("b"))
    assert watch.avoided() == ()
    assert watch_of("a")[0].avoided() == ()


def test_a_node_is_not_avoided_for_a_storage_that_is_away_for_all() -> None:
    """Unless a trial has got on elsewhere since: then it is the node that does not reach it."""
    watch, clock = watch_of("a", "b")
    away = Fault("a", "a", "a checkpoint cannot be written to the storage (no route)")
    watch.went_well("t001", "b")
    clock.now = 1.0
    assert watch.failed("t000", away) == PAUSES[0]
    assert watch.avoided() == ()
    clock.now = 2.0
    watch.went_well("t001", "b")
    assert watch.failed("t000", away) == PAUSES[1]
    assert watch.avoided() == ("a",)


@pytest.mark.parametrize(("avoided", "none"), [((), False), (("a",), False), (("a", "b", "old"), True)])
def test_a_trial_may_wait_for_nodes_that_are_gone(avoided: tuple[str, ...], none: bool) -> None:
    assert watch_of("a", "b")[0].none_left(avoided) == none


def test_ray_may_pickle_it_with_the_searcher() -> None:
    assert pickle.dumps(watch_of("a")[0].avoided)


def test_a_trials_resources_are_asked_for_elsewhere() -> None:
    """The same request where nothing is avoided: Ray takes a process from trial to trial only where they are equal."""
    plain = placement({}, 2, 0.5)
    assert plain == placement({AVOID: []}, 2, 0.5) == tune.PlacementGroupFactory([{"CPU": 2, "GPU": 0.5}])
    apart = placement({AVOID: ["a1", "b2"]}, 2, 0.5)
    assert apart != plain
    assert apart._kwargs == {"bundle_label_selector": [{"ray.io/node-id": "!in(a1, b2)"}]}
