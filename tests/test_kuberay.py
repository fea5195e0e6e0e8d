"""`examples/kuberay.yaml`: parts that belong together agree, and its command is one of lorasweep's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from lorasweep.options import OPTIONS

FILE = Path(__file__).parents[1] / "examples" / "kuberay.yaml"
# What KubeRay 1.3 knows of a RayJob and of its cluster, as far as the example uses it.
JOB = {"backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "entrypoint", "rayClusterSpec"}
CLUSTER = {"rayVersion", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """By kind."""
    return {part["kind"]: part for part in yaml.safe_load_all(FILE.read_text(encoding="utf-8"))}


def test_it_has_the_fields_of_a_ray_job(parts: dict[str, Any]) -> None:
    job = parts["RayJob"]
    assert job["apiVersion"] == "ray.io/v1"
    assert set(job["spec"]) == JOB
    cluster = job["spec"]["rayClusterSpec"]
    assert set(cluster) == CLUSTER
    assert cluster["rayVersion"] == ray.__version__
    assert set(cluster["headGroupSpec"]) == {"rayStartParams", "template"}
    # KubeRay passes them on as texts.
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    for group in cluster["workerGroupSpecs"]:
        assert set(group) == GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_pods_agree_on_image_secret_and_volume(parts: dict[str, Any]) -> None:
    cluster = parts["RayJob"]["spec"]["rayClusterSpec"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    workers = [group["template"]["spec"] for group in cluster["workerGroupSpecs"]]
    containers = [container for pod in (head, *workers) for container in pod["containers"]]
    assert len({container["image"] for container in containers}) == 1, "Ray, torch and lorasweep are the same"
    secret = parts["Secret"]["metadata"]["name"]
    for container in containers:
        assert container["envFrom"] == [{"secretRef": {"name": secret}}]
        # Ray counts the limits, and a trial must not get less than it reserves.
        assert container["resources"]["requests"] == container["resources"]["limits"]
    claims = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in head["volumes"]}
    assert claims == {"record": parts["PersistentVolumeClaim"]["metadata"]["name"]}
    assert [mount["name"] for mount in containers[0]["volumeMounts"]] == list(claims)


def test_its_command_is_one_that_resumes_or_runs(parts: dict[str, Any]) -> None:
    program, verb, again, *rest = shlex.split(parts["RayJob"]["spec"]["entrypoint"])
    assert (program, verb, again) == ("lorasweep", "run", "--resume")
    given = dict(zip(rest[::2], rest[1::2], strict=True))
    known = {option.flag for option in OPTIONS.values()} | {"--mlruns"}
    assert set(given) <= known
    assert "--address" not in given, "a job joins its cluster"
    assert {"--name", "--storage"} <= set(given), "by these it finds its sweep again"
    record = given["--mlruns"]
    head = parts["RayJob"]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounted = head["containers"][0]["volumeMounts"][0]["mountPath"]
    assert record.startswith(mounted), "it outlives the pod"
    assert given["--data"].startswith(mounted)


def test_workers_hold_the_trials(parts: dict[str, Any]) -> None:
    """One each, and all at once when every worker is there."""
    script = parts["RayJob"]["spec"]["entrypoint"]
    cores, gpus, at_once = (
        int(re.search(rf"--{name} (\d+)", script)[1])  # type: ignore[index]
        for name in ("cpus-per-trial", "gpus-per-trial", "concurrency")
    )
    (group,) = parts["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (int(limits["cpu"]), int(limits["nvidia.com/gpu"])) == (cores, gpus)
    assert group["maxReplicas"] == at_once
