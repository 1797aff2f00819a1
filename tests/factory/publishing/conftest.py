"""A stand-in for the hub: the part of its interface that uploads use, on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

LICENCES = ("mit", "apache-2.0", "cc-by-4.0", "cc-by-nc-4.0", "other")


@dataclass
class Hub:
    """Its address, and what it has received.

    `files` are those of the dataset by path, `requests` all requests as `POST /path`; `objects` are
    large files by sha256. While `is_broken`, large files are refused.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    is_private: bool | None = None
    is_broken: bool = False
    token: str = "hf_standInToken"

    def save(self, folder: Path) -> Path:
        """Write the files of the dataset to `folder`, as a download would."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    # --- answers: (status, content) ----------------------------------------------------------

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        path = path.partition("?")[0]
        if method == "PUT":
            if self.is_broken:
                return 400, {"error": "no"}
            self.objects[path.rsplit("/", 1)[-1]] = body
            return 200, {}
        if method == "GET":  # the tree, or facts about the dataset
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in self.files.items()
            ]
            return 200, tree if "/tree/" in path else {"id": "ada/smears", "sha": "0" * 40}
        last = path.rsplit("/", 1)[-1] if "/api/datasets/" not in path else path.split("/")[5]
        return getattr(self, f"_{last.replace('-', '_')}")(body)

    def _create(self, body: bytes) -> tuple[int, Any]:
        content = json.loads(body)
        self.is_private = content.get("private", content.get("visibility") == "private")
        name = f"{content['organization']}/{content['name']}"
        return 200, {"url": f"{self.url}/datasets/{name}"}

    def _validate_yaml(self, body: bytes) -> tuple[int, Any]:
        text = json.loads(body)["content"]
        if any(f"\nlicense: {licence}\n" in text for licence in LICENCES):
            return 200, {"errors": [], "warnings": []}
        return 400, {"errors": [{"message": '"license" must be one of a list'}], "warnings": []}

    def _preupload(self, body: bytes) -> tuple[int, Any]:
        files = json.loads(body)["files"]
        modes = ["regular" if f["path"].endswith((".md", ".json")) else "lfs" for f in files]
        paths = [f["path"] for f in files]
        return 200, {
            "files": [
                {"path": path, "uploadMode": mode, "shouldIgnore": False}
                for path, mode in zip(paths, modes, strict=True)
            ]
        }

    def _batch(self, body: bytes) -> tuple[int, Any]:
        objects = json.loads(body)["objects"]
        for item in objects:
            if item["oid"] not in self.objects:
                item["actions"] = {"upload": {"href": f"{self.url}/lfs/{item['oid']}"}}
        return 200, {"transfer": "basic", "objects": objects}

    def _commit(self, body: bytes) -> tuple[int, Any]:
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.files[value["path"]] = self.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del self.files[value["path"]]
        return 200, {"commitUrl": f"{self.url}/datasets/ada/smears/commit/0", "commitOid": "0" * 40}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A running stand-in; it answers those who have its token."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.requests.append(f"{self.command} {self.path}")
            status, content = 401, {"error": "who are you?"}
            if (
                self.command == "PUT"
                or self.headers.get("authorization") == f"Bearer {state.token}"
            ):
                status, content = state.answer(self.command, self.path, body)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _serve

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()
