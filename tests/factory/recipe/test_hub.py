"""Weights by a hub id, from a stand-in of the Hugging Face hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": b"weights" * 1000,
    "README.md": b"not of the weights",
    "pickled.bin": b"not wanted either",
}
# In a separate process: the address of the hub is read when the client is imported.
FETCH = """
import sys
from factory.recipe.weights import find_weights

for repository in sys.argv[1:]:
    try:
        print(find_weights("generator.weights", repository))
    except FileNotFoundError as error:
        print(error)
"""


class Hub(BaseHTTPRequestHandler):
    """One public repository, `studio/cells`, of one commit."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        file = path.removeprefix(f"/studio/cells/resolve/{COMMIT}/")
        if path in ("/api/models/studio/cells", "/api/models/studio/cells/revision/main"):
            siblings = [{"rfilename": name} for name in FILES]
            content = {"id": "studio/cells", "sha": COMMIT, "siblings": siblings}
            self._send(json.dumps(content).encode(), with_body)
        elif path == f"/api/models/studio/cells/tree/{COMMIT}":
            self._send(json.dumps([_entry(name) for name in FILES]).encode(), with_body)
        elif file in FILES:
            headers = {"ETag": f'"{_oid(FILES[file])}"', "X-Repo-Commit": COMMIT}
            self._send(FILES[file], with_body, 200, headers)
        else:
            headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            self._send(b'{"error": "Repository not found"}', with_body, 404, headers)

    def _send(
        self, body: bytes, with_body: bool, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _entry(name: str) -> dict[str, object]:
    return {
        "type": "file",
        "path": name,
        "size": len(FILES[name]),
        "oid": _oid(FILES[name]),
    }


@pytest.fixture
def hub() -> Iterator[str]:
    """The hub's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(hub: str, home: Path, *repositories: str) -> list[str]:
    """The result or error of `find_weights` for each; downloads go below `home`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    here = {"HF_ENDPOINT": hub, "HF_HOME": str(home / "hf"), "NO_PROXY": "127.0.0.1"}
    program = [sys.executable, "-c", FETCH, *repositories]
    done = subprocess.run(
        program, capture_output=True, text=True, env=kept | here, cwd=home, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_weights_and_settings_are_fetched_and_kept(hub: str, tmp_path: Path) -> None:
    found, unknown = fetch(hub, tmp_path, "studio/cells", "studio/none")
    folder = Path(found)
    assert folder.is_relative_to(tmp_path / "hf")
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert files == {name: FILES[name] for name in FILES if name.startswith("unet/")}
    assert unknown.startswith(
        "generator.weights: studio/none is neither a folder here nor a hub repository that can be"
        " fetched (RepositoryNotFoundError: "
    )
    gone = fetch("http://127.0.0.1:9", tmp_path, "studio/cells")  # nothing listens there
    assert gone == [found]
