"""Addresses at which there is no Ray cluster, and folders with names too long for its sockets."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from factory.pipeline.executors import reaching
from factory.pipeline.executors.cluster import cluster as start_ray
from factory.pipeline.executors.reaching import check_answers, check_socket_paths


@pytest.fixture
def dead() -> str:
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def listener() -> Iterator[Callable[[bytes | None], str]]:
    """`listener(answer)` -> the address of a server that says that, or nothing (None)."""
    servers: list[socket.socket] = []

    def serve(server: socket.socket, answer: bytes | None, held: list[socket.socket]) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            held.append(connection)
            if answer is not None:
                connection.sendall(answer)
                connection.close()

    def start(answer: bytes | None) -> str:
        server = socket.create_server(("", 0))  # Ray replaces 127.0.0.1 by the machine's address
        servers.append(server)
        threading.Thread(target=serve, args=(server, answer, []), daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def refusal(address: str) -> str:
    with pytest.raises(ConnectionError) as caught:
        check_answers(address)
    message = str(caught.value)
    assert message.startswith(f"--address {address}: found no Ray cluster to join there (")
    assert "unset RAY_ADDRESS" in message
    return message


def test_nothing_listens(dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in (dead, f"ray://{dead}"):
        assert "refused" in refusal(address)
    monkeypatch.setenv("RAY_ADDRESS", dead)
    assert "refused" in refusal("auto")


def test_something_else_listens(listener: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "something else than Ray" in refusal(listener(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    refusal(listener(b""))  # closed, or reset
    monkeypatch.setattr(reaching, "ANSWER_SEC", 0.2)
    assert "timed out" in refusal(listener(None))


@pytest.mark.parametrize("address", ["cluster", "http://host", "127.0.0.1:", "ray://", "a:b:c"])
def test_no_address(address: str) -> None:
    refusal(address)


def test_a_running_cluster_answers(cluster: Any) -> None:
    address = cluster.get_runtime_context().gcs_address
    check_answers(address)
    check_answers("local")


def test_ray_that_does_not_return_is_given_up(
    listener: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from factory.pipeline.executors import cluster as module

    released = threading.Event()
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: released.wait())
    monkeypatch.setattr(module, "JOIN_SEC", 0.2)
    monkeypatch.setattr(module, "LEAVE_SEC", 0.1)
    address = listener(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    with pytest.raises(OSError, match="no answer in 0 s"), start_ray(address, 1):
        raise AssertionError("it joined")
    released.set()


# --- long paths ------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere, TMPDIR is not used")
def test_paths_that_are_too_long_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    check_socket_paths()
    monkeypatch.setenv("TMPDIR", "/scratch/" + "slurm" * 10)
    with pytest.raises(OSError, match=r"TMPDIR is .* set RAY_TMPDIR to a short path"):
        check_socket_paths()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    check_socket_paths()


def test_the_longest_path_that_ray_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private.utils import validate_socket_filepath

    session = f"session_2026-11-28_11-39-02_123456_{os.getpid()}"
    for length in range(20, 80):
        monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * length)
        path = f"{os.environ['RAY_TMPDIR']}/ray/{session}/sockets/plasma_store"
        outcomes = []
        for check in (check_socket_paths, lambda path=path: validate_socket_filepath(path)):
            try:
                check()
                outcomes.append(True)
            except OSError:
                outcomes.append(False)
        assert outcomes[0] == outcomes[1], length
    assert outcomes == [False, False]
