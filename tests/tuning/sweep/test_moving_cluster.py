"""A sweep on a cluster that is busy, grows and loses its head. Ray's own nodes, all on this machine."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from whole_sweeps import lorasweep, started, wait_for

from lorasweep.tuning.record.folder import SweepFolder

RUN = ("run", "--data", "rows.csv", "--base-model", "./base", "--max-length", "16", "--space", "lora_cpu")
# Seconds after which Ray's processes give up their head; the sweep has to be quicker.
PATIENCE = 24


@ray.remote(num_cpus=1)
class Other:
    """What another job runs."""

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


@pytest.mark.slow
def test_a_sweep_waits_grows_loses_its_head_and_goes_on_elsewhere(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", str(PATIENCE))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    address, folder = cluster.address, SweepFolder(place / "mlruns", "moving")
    log = place / "moving.log"
    try:
        busy = cluster.add_node(num_cpus=1)
        ray.init(address=address, log_to_driver=False)
        other = Other.remote()  # type: ignore[attr-defined]
        assert ray.get(other.node.remote()) == busy.node_id
        given = ("--address", address, "--storage", str(tmp_path), "--name", "moving")
        more = ("--concurrency", "2", "--trials", "2", "--epochs", "10", "--no-asha", "--precision", "fp32")
        patience = {"RAY_gcs_rpc_server_reconnect_timeout_s": str(PATIENCE)}
        with log.open("w") as out, started(place, *RUN, *given, *more, **patience) as process:

            def copy() -> None:
                assert process.stdout is not None
                for line in process.stdout:
                    out.write(line)
                    out.flush()

            reader = threading.Thread(target=copy, daemon=True)
            reader.start()
            wait_for(lambda: " has it" in log.read_text(), process)
            said = " ".join(log.read_text().split())
            assert "the cluster holds 1 of 2 trials at once now; more start as nodes join" in said
            assert re.search(
                r"t000 and t001 wait for 1 core: [\d.]+ has 0 of 1 cores free; .*\(1 core\) has it", said
            )
            assert folder.trials() == []
            # The other job keeps its node: trials run on the one that joins.
            joined = cluster.add_node(num_cpus=1)
            wait_for(lambda: any(len(trial.evaluations) > 1 for trial in folder.trials()), process)
            assert joined.node_id != busy.node_id
            ray.shutdown()
            cluster.head_node.kill_gcs_server()
            killed = time.monotonic()
            process.wait(timeout=PATIENCE + 30)
            assert time.monotonic() - killed < 60
            reader.join(10)
            assert process.stderr is not None
            said = " ".join(process.stderr.read().split())
        assert process.returncode == 2, log.read_text() + said
        assert re.search(rf"lorasweep: sweep moving: the head of the cluster at {address} is gone; ", said)
        assert "lorasweep resume moving --address HOST:PORT" in said
    finally:
        ray.shutdown()
        cluster.shutdown()
    result, before = folder.result(), {trial.id: trial for trial in folder.trials()}
    assert result is not None
    assert result.state == "interrupted"
    assert any(trial.evaluations for trial in before.values())
    out_text, _ = lorasweep(place, "resume", "moving", "--address", "local", "--concurrency", "1")
    said = " ".join(out_text.split())
    assert f"from now on: address this machine instead of {address}; concurrency 1 instead of 2" in said
    assert folder.config().resources.address is None
    for trial in folder.trials():
        assert trial.state == "completed"
        assert [evaluation.rung for evaluation in trial.evaluations] == list(
            range(1, len(trial.evaluations) + 1)
        )
        earlier = before[trial.id].evaluations if trial.id in before else ()
        assert trial.evaluations[: len(earlier)] == earlier, "nothing that was done is done again"
