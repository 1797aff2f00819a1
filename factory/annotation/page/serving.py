"""Serving the page on a socket of this machine."""

from __future__ import annotations

import secrets
import socket
import threading
import webbrowser

import uvicorn
from rich.console import Console

from factory.annotation.page.app import Page, build
from factory.annotation.page.security import is_loopback

PORT = 8321
ENDING_SEC = 2


def bind(host: str, port: int | None) -> socket.socket:
    """A socket at `host`; without a port, at PORT or, if that is in use, at any free one.

    Raises OSError, in one line, if it cannot be had.
    """
    try:
        about = socket.getaddrinfo(host, port or PORT, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        raise OSError(f"--host {host}: no such address on this machine") from None
    for wanted in (PORT, 0) if port is None else (port,):
        bound = socket.socket(about[0], socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, wanted))
            return bound
        except OSError as error:
            bound.close()
            reason = error
    if isinstance(reason, PermissionError) or "in use" in str(reason):
        raise OSError(f"--port {wanted}: it is in use, or not allowed: give another port")
    raise OSError(f"--host {host}: {reason.strerror}: give an address of this machine")


class _Server(uvicorn.Server):
    """Ends the waiting requests of open pages first; they would hold up the end."""

    def __init__(self, config: uvicorn.Config, page: Page):
        super().__init__(config)
        self.page = page

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.page.changes.note(ended=True)
        await super().shutdown(sockets)


def serve(page: Page, bound: socket.socket, browser: bool, console: Console) -> None:
    """Serve until interrupted; prints the address, and opens it in a browser if asked to."""
    host, port = bound.getsockname()[:2]
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
    address = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"
    if token is not None:
        address += f"?token={token}"
        console.print("Anyone with this address can draw here, and it is sent unencrypted.")
    console.print(f"{address}  (Ctrl-C ends it; every stroke is saved)")
    if browser:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    settings = uvicorn.Config(
        build(page, token),
        log_level="warning",
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=ENDING_SEC,
    )
    if page.assist is not None:
        page.assist.start()
    try:
        _Server(settings, page).run(sockets=[bound])
    finally:
        if page.assist is not None:
            page.assist.stop()
