"""What keeps Ray from starting or from joining a cluster, found before Ray tries.

Ray's core retries an address at which nothing listens for ten minutes, deaf to Ctrl-C, and takes
half a minute to notice that a path is too long.
"""

from __future__ import annotations

import os
import socket
import sys

ANSWER_SEC = 10.0
CLIENT_SCHEME, CLIENT_PORT = "ray://", 10001
# A server of gRPC, which Ray speaks, begins with a SETTINGS frame: length (3 bytes), type 4.
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS_FRAME, FRAME_TYPE_AT = 4, 3
SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107  # the most that the system allows


def check_answers(address: str) -> None:
    """Raise ConnectionError unless a gRPC server answers at a Ray `address`, within seconds.

    `address` is `auto`, `HOST:PORT` or `ray://HOST:PORT`; `local` is not a running cluster.
    """
    if address == "local":
        return
    try:
        host, port = _place(address)
        with socket.create_connection((host, port), ANSWER_SEC) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                connection.settimeout(ANSWER_SEC)
                connection.sendall(HTTP2_PREFACE)
                _expect_settings(connection)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConnectionError(
            f"--address {address}: found no Ray cluster to join there ({reason}): start it, give "
            "another --address, or unset RAY_ADDRESS to start Ray on this machine"
        ) from None


def check_socket_paths() -> None:
    """Raise OSError if the names of Ray's sockets in the temporary folder would be too long."""
    if sys.platform == "win32":
        return
    # As Ray chooses it: get_default_system_temp_dir and the session's name in ray/_private/node.py.
    setting = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    if setting is None or (setting == "TMPDIR" and not sys.platform.startswith("linux")):
        return
    session = f"session_2000-01-01_00-00-00_000000_{os.getpid()}"
    path = os.path.join(os.environ[setting], "ray", session, "sockets", "plasma_store")
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES:
        raise OSError(
            f"{setting} is {os.environ[setting]}, too long for Ray: its sockets there need "
            f"{length} bytes, and the system allows {SOCKET_PATH_BYTES}: set RAY_TMPDIR to a short "
            "path such as /tmp, or work without Ray (--executor local; train-deeplab without "
            "--workers)"
        )


def _place(address: str) -> tuple[str, int]:
    """Host and port of a Ray address; raises ValueError or ConnectionError."""
    if address.startswith(CLIENT_SCHEME):
        host, _, port = address.removeprefix(CLIENT_SCHEME).strip("/").rpartition(":")
        if not host:
            host, port = port, str(CLIENT_PORT)
    else:
        from ray._private.services import canonicalize_bootstrap_address

        found = canonicalize_bootstrap_address(address)  # `auto` is Ray's to resolve
        host, _, port = (found or "").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("expected auto, HOST:PORT or ray://HOST:PORT")
    return host.strip("[]"), int(port)


def _expect_settings(connection: socket.socket) -> None:
    head = b""
    while len(head) <= FRAME_TYPE_AT:
        received = connection.recv(FRAME_TYPE_AT + 1 - len(head))
        if not received:
            raise ConnectionError("something there closes the connection, Ray does not")
        head += received
    if head[FRAME_TYPE_AT] != SETTINGS_FRAME:
        raise ConnectionError("something else than Ray listens there")
