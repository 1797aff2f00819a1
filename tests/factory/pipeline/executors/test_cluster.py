"""A cluster of several nodes on this machine, and the file that starts one in a cloud."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

SECONDS = 600  # the longest wait
ROOT = Path(__file__).parents[4]
SAMPLES = 64  # of the job, in 8 shards
# `factory` on tiny models, which make two shards and then wait until the file `gate` exists.
JOB = """
import functools, sys, time
from pathlib import Path

sys.path.insert(0, sys.argv.pop(1))
gate = Path(sys.argv.pop(1))

from factory.cli import main
from factory.pipeline.job import Job
from factory.reports import preview
from tests.stand_ins import Tiny, by_value

def wait(indices):
    while indices[0] >= 16 and not gate.exists():
        time.sleep(0.05)

tiny = by_value(Tiny(Path()))
tiny.models.disturb = wait
preview.TILE = 16  # as in the fixture
Job.sampling = functools.partial(Job.sampling, load=tiny.load)
main()
"""


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head node for drivers and the Jobs API, and two worker nodes of one core each."""
    pytest.importorskip("ray.dashboard.optional_deps", reason="needs ray[default]")
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray")  # pytest's paths are too long for sockets
    head = {"num_cpus": 0, "include_dashboard": True, "temp_dir": folder}
    head |= {"dashboard_port": free_port(), "dashboard_agent_listen_port": free_port()}
    made = Cluster(initialize_head=True, head_node_args=head)
    # Ray's agent reads the address for jobs here; other clusters may run on this machine.
    Path(folder, "ray_current_cluster").write_text(made.address)
    try:
        for _ in range(2):
            made.add_node(num_cpus=1, wait=False)
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: Callable[[], Any], unless: Callable[[], str | None]) -> Any:
    """The first true value of `what()`; fails with the message of `unless()`, if it returns one."""
    until = time.monotonic() + SECONDS
    while not (found := what()):
        problem = unless()
        assert problem is None, problem
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.2)
    return found


def submit(client: Any, entrypoint: str) -> str | None:
    """The job's id; None while the agent that starts jobs is not up yet."""
    try:
        return client.submit_job(entrypoint=entrypoint)
    except RuntimeError as error:
        if "No available agent" not in str(error):
            raise
        return None


@pytest.mark.slow
def test_a_node_is_killed_in_the_middle_of_a_job(
    cluster: Any, tiny: Any, tmp_path: Path, tree: Callable[[Path], dict[str, str]]
) -> None:
    from ray.job_submission import JobStatus, JobSubmissionClient
    from ray.util.state import list_actors

    url = f"http://{cluster.webui_url}"
    client, out, gate = JobSubmissionClient(url), tmp_path / "out", tmp_path / "gate"
    script = tmp_path / "job.py"
    script.write_text(JOB)
    # Ray passes the cluster's address to the driver of a job, which needs no --address.
    command = (
        *(sys.executable, script, ROOT, gate, "generate", "--recipe", tmp_path / "tiny.yaml"),
        *("--n", SAMPLES, "--workers", 2, "--out", out),
    )
    job = wait_for(lambda: submit(client, " ".join(map(str, command))), unless=lambda: None)

    def ended() -> str | None:
        is_over = client.get_job_status(job).is_terminal()
        return client.get_job_logs(job) if is_over else None

    def nodes_at_work() -> set[str]:
        alive = [("class_name", "=", "ShardActor"), ("state", "=", "ALIVE")]
        return {actor.node_id for actor in list_actors(address=url, filters=alive)}

    def markers() -> list[Path]:
        return list(out.glob("candidates/*_stats.json"))

    wait_for(lambda: len(markers()) == 2 and len(nodes_at_work()) == 2, unless=ended)
    victim = next(node for node in cluster.worker_nodes if node.node_id in nodes_at_work())
    cluster.remove_node(victim, allow_graceful=False)
    gate.touch()
    wait_for(lambda: client.get_job_status(job).is_terminal(), unless=lambda: None)
    assert client.get_job_status(job) == JobStatus.SUCCEEDED, client.get_job_logs(job)

    tiny.make(tmp_path / "alone", SAMPLES)
    rows = [pq.read_table(tmp_path / o / "samples.parquet").to_pylist() for o in ("out", "alone")]
    assert rows[0] == rows[1]  # first, so that a failure shows the rows
    assert tree(out) == tree(tmp_path / "alone")


# --- ray_cluster.yaml ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def launcher() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def test_ray_accepts_the_cluster_file(launcher: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(launcher)
    validate_config(config)
    workers = config["available_node_types"]["gpu_worker"]
    assert workers["min_workers"] == 0
    assert workers["max_workers"] == config["max_workers"] > 1
    assert workers["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert config["available_node_types"][config["head_node_type"]]["max_workers"] == 0


def test_the_cluster_file_is_edited_in_three_places() -> None:
    lines = (ROOT / "ray_cluster.yaml").read_text().splitlines()
    assert [line.strip() for line in lines if "EDIT" in line] == [
        "# EDIT 1 of 3: the cloud",
        "# EDIT 2 of 3: the machines",
        "# EDIT 3 of 3: the bucket",
    ]
