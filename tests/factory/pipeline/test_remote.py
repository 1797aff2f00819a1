"""Datasets in buckets: jobs on a real S3 server on this machine, and on `memory://`."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import sys
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import pytest
from rich.console import Console

from factory.commands.status import read_status, report
from factory.locking import lease
from factory.locking.lease import LOCK_NAME
from factory.locking.lock import exclusive
from factory.pipeline.estimate import estimate
from factory.pipeline.executors import LocalExecutor, RayExecutor
from factory.pipeline.job import Job
from factory.pipeline.ownership import finished_shards
from factory.pipeline.verify import verify
from factory.pipeline.worker import WorkerSpec
from factory.reports.preview import write_preview
from factory_core.dataset import open_dataset, read_samples
from factory_core.storage import Store, open_store

SHARDS = 4  # of 25 candidates, 8 a shard


@pytest.fixture(params=["s3_out", "memory_out"])
def out(request: pytest.FixtureRequest) -> Store:
    """A folder of each kind of store."""
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short leases, of which only the order matters, and no previews, which are slow."""
    monkeypatch.setattr(lease, "BEAT_SEC", 0.1)
    monkeypatch.setattr(lease, "SETTLE_SEC", 0.05)
    monkeypatch.setattr("factory.reports.preview.fault", lambda folder: None)


def objects(folder: Any) -> dict[str, bytes]:
    """Contents of all objects below `folder`, by name."""
    fs = folder._fs
    return {name.split("/out/", 1)[1]: fs.cat_file(name) for name in fs.find(folder._key())}


def hashes(folder: Store) -> dict[str, str]:
    return {name: sha256(data).hexdigest() for name, data in objects(folder).items()}


def flip(folder: Store, name: str) -> None:
    """Change a byte in the middle, which neither size nor structure reveals."""
    content = bytearray(folder.read(name))
    content[len(content) // 2] ^= 1
    folder.write(name, bytes(content))


# --- the job ---------------------------------------------------------------------------------


def test_a_bucket_gets_the_bytes_of_a_folder(tiny: Any, out: Store, tmp_path: Path, tree: Any):
    remote, local = tiny.make(out), tiny.make(tmp_path / "local")
    assert remote == local
    assert hashes(out) == tree(tmp_path / "local")
    assert len(list(read_samples(str(out)))) == local.totals.kept
    tiny.models.made.clear()
    assert tiny.make(out) == local
    assert not tiny.models.made


def test_the_preview_of_a_bucket(tiny: Any, s3_out: Store, tmp_path: Path):
    pictures = []
    for folder in (s3_out, tmp_path / "local"):
        tiny.make(folder, keep_candidates=True)  # the dropped ones are shown too
        write_preview(folder)
        pictures.append(open_store(folder).read("preview.png"))
    assert pictures[0] == pictures[1]


def test_only_missing_shards_are_made(tiny: Any, out: Store, tmp_path: Path, tree: Any):
    tiny.begin(out, 2)
    names = set(objects(out))
    assert {"candidates/000001_stats.json", "candidates/000001.tar"} <= names
    assert not [name for name in names if ".tmp-" in name or name.endswith(LOCK_NAME)]
    # A shard without a marker is not finished.
    (out / "candidates").delete("000000_stats.json")
    tiny.make(out)
    assert tiny.models.made == [*range(8), *range(16, 25)]
    tiny.make(tmp_path / "local")
    assert hashes(out) == tree(tmp_path / "local")


@pytest.mark.parametrize("name", ["000001.tar", "000001.parquet", "000001_stats.json"])
@pytest.mark.parametrize("kept_bytes", [0, -9])
def test_truncated_shards_are_regenerated(
    tiny: Any, memory_out: Store, name: str, kept_bytes: int
) -> None:
    tiny.begin(memory_out, 2)
    candidates = memory_out / "candidates"
    candidates.write(name, candidates.read(name)[:kept_bytes])
    tiny.make(memory_out)
    assert tiny.models.made == list(range(8, 25))


@pytest.mark.parametrize("name", ["000001.tar", "000001.parquet"])
def test_damaged_shards_are_found_when_they_are_read(tiny: Any, memory_out: Store, name: str):
    tiny.begin(memory_out, 2)
    flip(memory_out / "candidates", name)
    with pytest.raises(ValueError, match=rf"{name} was damaged after it was finished: rerun the"):
        tiny.make(memory_out)
    tiny.models.made.clear()
    tiny.make(memory_out)
    assert tiny.models.made == list(range(8, 16))
    assert verify(memory_out) == []


def test_a_killed_job_is_resumed(tiny: Any, s3_out: Store, tmp_path: Path, tree: Any):
    def die(indices: Any) -> None:
        if indices[0] >= 16:
            os.kill(os.getpid(), signal.SIGKILL)

    job = multiprocessing.get_context("fork").Process(target=disturbed, args=(tiny, s3_out, die))
    job.start()
    job.join(600)
    assert job.exitcode == -signal.SIGKILL
    assert s3_out.exists(LOCK_NAME)  # a killed job cannot remove it
    assert read_status(s3_out).holder is None
    tiny.make(s3_out)
    assert tiny.models.made == list(range(16, 25))
    tiny.make(tmp_path / "local")
    assert hashes(s3_out) == tree(tmp_path / "local")


def disturbed(tiny: Any, out: Store, disturb: Callable[[Any], None]) -> None:
    tiny.models.disturb = disturb
    tiny.make(out)


def test_resuming_lists_the_folder_once(
    tiny: Any, s3_out: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.begin(s3_out, SHARDS)
    requests = Counter[str]()
    store = fsspec.get_filesystem_class("s3")
    call = store._call_s3

    async def counted(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        requests[method] += 1
        return await call(self, method, *args, **kwargs)

    monkeypatch.setattr(store, "_call_s3", counted)
    job = tiny.job(s3_out)
    before = requests.copy()
    assert len(finished_shards(job.candidates, job.shards, job.identity.sha256)) == SHARDS
    assert requests - before == {"get_object": SHARDS, "list_objects_v2": 1}


def test_photographs_are_labelled_into_a_bucket(tiny: Any, memory_out: Store, tmp_path: Path):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for i in range(9):
        Image.new("RGB", (16, 16), (25 * i, 10, 10)).save(tmp_path / f"photos/{i}.png")
    assert tiny.label(tmp_path / "photos", memory_out).totals.candidates == 9


def test_a_worker_can_use_the_store_it_is_sent(tiny: Any, s3_out: Store):
    spec = WorkerSpec.of(Job.sampling(tiny.recipe(), 25, s3_out))
    s3_out.write("note", b"here")  # opens the connection, which cannot be pickled
    there = pickle.loads(pickle.dumps(spec))
    assert there == spec
    assert there.out.read("note") == b"here"


# --- status, verify, repair ------------------------------------------------------------------


def test_status_of_a_bucket(tiny: Any, out: Store):
    tiny.begin(out, 2)
    found = read_status(out)
    assert (found.shards_done, found.samples_done) == (2, 16)
    assert found.holder is None
    console = Console(record=True, file=io.StringIO(), width=200)
    with exclusive(out):
        report(out, console)
    assert f"running on host {os.uname().nodename}" in console.export_text()
    tiny.make(out)
    report(out, console)
    finished = console.export_text()
    assert "finished: 25 candidates, 23 kept in 4 shards" in finished
    assert "bright" in finished  # a row of the class shares


def test_damage_is_found_and_repaired(tiny: Any, out: Store):
    tiny.make(out)
    whole = hashes(out)
    assert verify(out) == []
    flip(out / "shards", "tiny-000000.tar")
    (out / "shards").delete("tiny-000001.tar")
    assert [problem.file for problem in verify(out)] == [
        "shards/tiny-000000.tar",
        "shards/tiny-000001.tar",
    ]
    tiny.models.made.clear()
    tiny.make(out)
    assert 0 < len(set(tiny.models.made)) < 25
    assert hashes(out) == whole


def test_damaged_rows_are_regenerated(tiny: Any, memory_out: Store):
    tiny.make(memory_out)
    whole = hashes(memory_out)
    flip(memory_out, "samples.parquet")
    assert [problem.file for problem in verify(memory_out)] == ["samples.parquet"]
    tiny.make(memory_out)
    assert hashes(memory_out) == whole


def test_the_free_space_of_a_bucket_is_unknown(tiny: Any, memory_out: Store):
    made = estimate(tiny.job(memory_out), LocalExecutor())
    assert made.disk_gib > 0
    assert made.disk_free_gib is None


def test_opening_a_dataset_finds_truncated_and_missing_files(tiny: Any, memory_out: Store):
    out = memory_out
    tiny.make(out)
    shards, name = out / "shards", "tiny-000001.tar"
    shards.write(name, shards.read(name)[:-512])
    with pytest.raises(ValueError, match=r"tiny-000001.tar has \d+ bytes, .* it is damaged"):
        open_dataset(str(out))
    shards.delete(name)
    with pytest.raises(FileNotFoundError, match=r"tiny-000001.tar is missing"):
        open_dataset(str(out))


def test_a_forked_loader_opens_the_shards(tiny: Any, s3_out: Store):
    tiny.make(s3_out)
    data = open_dataset(str(s3_out))
    with multiprocessing.get_context("fork").Pool(1) as pool:
        names = [(data.shards, info.name) for info in data.manifest.shards]
        result = pool.starmap_async(read, names)
        digests = [sha256(content).hexdigest() for content in result.get(600)]
    assert digests == [info.sha256 for info in data.manifest.shards]


def read(folder: Store, name: str) -> bytes:
    with folder.open(name) as file:
        return file.read()


def test_a_segmenter_learns_from_a_bucket(tiny: Any, s3_out: Store, tmp_path: Path):
    from train_seg.config import AugmentConfig
    from train_seg.data.augment import Augment
    from train_seg.data.training_data import open_training_data

    def first(folder: str) -> list[bytes]:
        data = open_training_data([folder], lambda size: Augment(AugmentConfig(), size))
        return [t.numpy().tobytes() for batch in islice(data.source.batches(4), 7) for t in batch]

    tiny.make(s3_out)
    tiny.make(tmp_path / "local")
    assert first(str(s3_out)) == first(str(tmp_path / "local"))


# --- mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://", "S3://bucket/x", "http:///x"])
def test_unknown_urls_are_refused(factory: Callable, url: str):
    result = factory("generate", "--n", 4, "--out", url)
    assert result.code == 1
    assert result.err.startswith(f"error: {url}: expected a folder on this machine, s3://BUCKET")
    assert result.err.count("\n") == 1


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "gs", raising=False)
    with pytest.raises(ImportError, match=r"found no package gcsfs: pip install .*\[gcs\]"):
        open_store("gs://bucket/x")


@pytest.mark.parametrize("command", ["generate", "status", "verify"])
def test_no_such_bucket(s3: str, factory: Callable, command: str):
    url = "s3://no-such-bucket/x"
    result = factory(command, *(["--n", 4, "--out", url] if command == "generate" else [url]))
    assert result.code == 1
    assert (
        result.err
        == f"error: {url}: there is no bucket no-such-bucket: create it, or correct its name\n"
    )


def test_no_credentials(
    s3: str, factory: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    result = factory("status", "s3://bucket/x")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "s3://bucket/x" in result.err
    assert "credentials" in result.err


def test_an_empty_folder_holds_no_dataset(out: Store, factory: Callable):
    result = factory("status", out)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert f"{out} holds no dataset.json and no candidates/job.json" in result.err
    with pytest.raises(FileNotFoundError, match="no such folder, expected a dataset"):
        open_dataset(str(out))


def test_training_on_an_empty_folder(s3_out: Store, factory: Callable, tmp_path: Path):
    result = factory("train-deeplab", "--data", s3_out, "--out", tmp_path / "model")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert str(s3_out) in result.err


def test_other_files_in_the_folder(tiny: Any, out: Store):
    out.write("notes.txt", b"mine")
    with pytest.raises(FileExistsError, match=r"holds no dataset but notes.txt"):
        tiny.make(out)
    with pytest.raises(NotADirectoryError, match="found a file"):
        tiny.make(out / "notes.txt")


def test_memory_is_not_shared_with_workers(tiny: Any):
    with pytest.raises(ValueError, match=r"is in the memory of this process.*--executor local"):
        tiny.make("memory://alone", executor=RayExecutor(1))


@pytest.mark.parametrize(
    "command",
    [
        ("train-labeler", "--labeled", "x", "--generator", "g"),
        ("train-deeplab", "--data", "x"),
        ("render-demo",),
    ],
)
def test_commands_that_write_locally_only(factory: Callable, command: tuple[str, ...]):
    result = factory(*command, "--out", "s3://bucket/x")
    assert result.code == 1
    assert result.err == "error: --out s3://bucket/x: expected a path on this machine\n"
