"""Commands that cannot start Ray, or find no cluster: one line, and Ctrl-C is heard."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.demo.render import render_folder

SECONDS = 300  # the longest wait


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # other tests may have started it
    monkeypatch.chdir(tmp_path)
    render_folder(tmp_path / "labeled", range(4), size=32)
    return {
        "generate": ("generate", "--n", "8", "--out", "out"),
        "label": ("label", "--images", "labeled/images", "--recipe", "demo", "--out", "out"),
        "train-deeplab": (
            *("train-deeplab", "--data", "labeled", "--out", "out", "--encoder", "resnet18"),
            *("--steps", "2", "--set", "batch_size=2", "--workers", "2"),
        ),
    }


@pytest.mark.parametrize("verb", ["generate", "label", "train-deeplab"])
def test_a_dead_cluster_is_one_line(
    factory: Callable,
    commands: dict[str, tuple[str, ...]],
    verb: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", dead)
    result = factory(*commands[verb])
    assert result.code == 1
    assert len(result.err.strip().splitlines()) == 1, result.err
    assert f"--address {dead}: found no Ray cluster" in result.err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT")
def test_ctrl_c_is_heard_while_nothing_answers(commands: dict[str, tuple[str, ...]]) -> None:
    silent = socket.create_server(("", 0))  # the system accepts the connection
    address = f"127.0.0.1:{silent.getsockname()[1]}"
    program = "from factory.pipeline.executors import reaching; reaching.ANSWER_SEC = 600; "
    program += "from factory.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *commands["generate"], "--address", address],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until = time.monotonic() + SECONDS
    while not Path("out").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error.strip() == "interrupted: rerun the command to resume"
    silent.close()


@pytest.mark.parametrize("verb", ["generate", "train-deeplab"])
def test_a_long_temporary_folder_is_one_line(
    factory: Callable,
    commands: dict[str, tuple[str, ...]],
    verb: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 80)
    result = factory(*commands[verb])
    assert result.code == 1
    assert len(result.err.strip().splitlines()) == 1, result.err
    assert "set RAY_TMPDIR to a short path" in result.err
    assert "--executor local" in result.err
