"""The requests of the page.

    GET  /                               the page; its files are at /static/NAME
    GET  /api/project                    classes, colours, pictures
    GET  /api/state?seen=VERSION         waits for something newer, then what there is to know
    GET  /api/images/NAME/picture.png    upright, RGB; thumb.png is a small one
    GET  /api/images/NAME/mask           class ids, a byte a pixel; its revision in X-Revision
    PUT  /api/images/NAME/mask?...       writes a rectangle x, y, w, h into revision `base`
    PUT  /api/images/NAME/finished?is=1  the user is done with the image
    GET  /api/images/NAME/proposal       class ids, then levels of uncertainty, a byte a pixel each
    GET  /api/images/NAME/region?...     region of class `id` around x, y: 0 or 1, a byte a pixel
    GET  /api/next?after=NAME            the most useful picture of those not finished

Names are looked up in the list of pictures and never joined to a path. Errors are one line of text.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from factory.annotation.page.assist import Assist
from factory.annotation.page.changes import Changes
from factory.annotation.page.folder import Box, Folder, Stale
from factory.annotation.page.security import Guard

STATIC = Path(__file__).with_name("static")
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
WAIT_SEC = 20.0  # for news; then the page asks again

Endpoint = Callable[[Request], Awaitable[Response]]


class Page:
    """The endpoints; `assist` is None without a generator, and then `hint` says how to get one."""

    def __init__(self, folder: Folder, changes: Changes, assist: Assist | None, hint: str):
        self.folder, self.changes, self.assist, self.hint = folder, changes, assist, hint
        self.session = secrets.token_hex(8)  # differs after a restart
        self.files = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.is_file()}

    def routes(self) -> list[Route]:
        """All of them, with the errors of the modules below turned into answers."""
        image = "/api/images/{name}"
        return [
            Route("/", self.file),
            Route("/static/{file}", self.file),
            Route("/api/project", _answering(self.project)),
            Route("/api/state", _answering(self.state)),
            Route("/api/next", _answering(self.next)),
            Route(f"{image}/picture.png", _answering(self.picture)),
            Route(f"{image}/thumb.png", _answering(self.thumbnail)),
            Route(f"{image}/mask", _answering(self.mask)),
            Route(f"{image}/mask", _answering(self.draw), methods=["PUT"]),
            Route(f"{image}/finished", _answering(self.finish), methods=["PUT"]),
            Route(f"{image}/proposal", _answering(self.proposal)),
            Route(f"{image}/region", _answering(self.region)),
        ]

    async def file(self, request: Request) -> Response:
        """A file of the page."""
        name = request.path_params.get("file", "index.html")
        if name not in self.files:
            raise HTTPException(404, f"no file {name}")
        return Response(self.files[name], media_type=TYPES[Path(name).suffix])

    async def project(self, _: Request) -> Response:
        """What does not change while the server runs."""
        about = {
            "key": self.folder.key,
            "title": self.folder.title,
            "classes": self.folder.classes,
            "palette": self.folder.palette,
            "images": self.folder.names,
            "hint": self.hint,
        }
        return JSONResponse(about)

    async def state(self, request: Request) -> Response:
        """What changes; waits until there is something that the page has not `seen`."""
        session, _, version = request.query_params.get("seen", "").partition(".")
        if session == self.session and version.isdecimal():
            await self.changes.newer_than(int(version), WAIT_SEC)
        return JSONResponse(await run_in_threadpool(self._state))

    def _state(self) -> dict[str, Any]:
        version = self.changes.version
        images = {name: self._image_state(name) for name in self.folder.names}
        assist = None if self.assist is None else self.assist.status()
        return {"seen": f"{self.session}.{version}", "images": images, "assist": assist}

    def _image_state(self, name: str) -> dict[str, Any]:
        try:
            drawing = self.folder.drawing(name)
            finished = self.folder.is_finished(name)
        except (ValueError, OSError) as error:
            return {"progress": "unreadable", "error": str(error)}
        progress = "finished" if finished else "new" if drawing.undrawn == 1 else "started"
        return {"progress": progress, "revision": drawing.revision, "undrawn": drawing.undrawn}

    async def picture(self, request: Request) -> Response:
        """A picture."""
        content = await run_in_threadpool(self.folder.picture, self._name(request))
        return Response(content, media_type="image/png")

    async def thumbnail(self, request: Request) -> Response:
        """A small picture."""
        content = await run_in_threadpool(self.folder.thumbnail, self._name(request))
        headers = {"Cache-Control": "private, max-age=600"}
        return Response(content, media_type="image/png", headers=headers)

    async def mask(self, request: Request) -> Response:
        """What is drawn on a picture."""
        drawing = await run_in_threadpool(self.folder.drawing, self._name(request))
        return _pixels(drawing.ids, {"X-Revision": drawing.revision})

    async def draw(self, request: Request) -> Response:
        """Save a rectangle; 409 and the current revision if the page drew on an older one."""
        name = self._name(request)
        box = Box(*(_number(request, key) for key in "xywh"))
        area = int(np.prod(await run_in_threadpool(self.folder.size, name)))
        body = await _body(request, min(box.width * box.height, area))
        if len(body) != box.width * box.height:
            raise ValueError(f"found {len(body)} bytes, expected {box.width} x {box.height}")
        ids = np.frombuffer(body, np.uint8).reshape(box.height, box.width)
        base = request.query_params.get("base", "")
        try:
            drawing = await run_in_threadpool(self.folder.change, name, base, box, ids)
        except Stale:
            current = await run_in_threadpool(self.folder.drawing, name)
            message = f"{name} was changed in another tab or program since this page read it"
            return JSONResponse({"message": message, "revision": current.revision}, 409)
        self._drawn()
        return JSONResponse({"revision": drawing.revision})

    async def finish(self, request: Request) -> Response:
        """Note that an image is finished, or is not."""
        finished = request.query_params.get("is") == "1"
        await run_in_threadpool(self.folder.finish, self._name(request), finished)
        self.changes.note()
        return JSONResponse({"finished": finished})

    async def proposal(self, request: Request) -> Response:
        """The proposal for a picture; 204 while there is none."""
        name = self._name(request)
        if self.assist is None:
            return Response(status_code=204)
        found = await run_in_threadpool(self.assist.proposal, name)
        if found is None:
            return Response(status_code=204)
        version, proposal = found
        pixels = np.concatenate([proposal.ids, proposal.levels])
        return _pixels(pixels, {"X-Version": str(version)})

    async def region(self, request: Request) -> Response:
        """The region of a class around a pixel; 204 if the proposals know none."""
        name = self._name(request)
        x, y, class_id = (_number(request, key) for key in ("x", "y", "id"))
        found = None
        if self.assist is not None:
            found = await run_in_threadpool(self.assist.proposal, name)
        if found is None:
            return Response(status_code=204)
        height, width = found[1].ids.shape
        if x >= width or y >= height or class_id >= len(self.folder.classes):
            raise ValueError(f"found pixel {x}, {y} and class {class_id}, beyond the image's")
        inside = await run_in_threadpool(found[1].region, x, y, class_id)
        if inside is None:
            return Response(status_code=204)
        return _pixels(inside.astype(np.uint8), {})

    async def next(self, request: Request) -> Response:
        """The most useful picture; the one after `after` while nothing is known."""
        name, reason = await run_in_threadpool(self._next, request.query_params.get("after", ""))
        return JSONResponse({"name": name, "reason": reason})

    def _next(self, after: str) -> tuple[str | None, str]:
        left = [n for n in self.folder.names if n != after and self._is_open(n)]
        if not left:
            return None, "every other image is finished"
        useful = None if self.assist is None else self.assist.most_useful(left)
        if useful is not None:
            return useful, "the proposals are the least certain here"
        return next((n for n in left if n > after), left[0]), "the next one"

    def _is_open(self, name: str) -> bool:
        return self._image_state(name)["progress"] in ("new", "started")

    def _drawn(self) -> None:
        self.changes.note()
        if self.assist is not None:
            self.assist.drawn()

    def _name(self, request: Request) -> str:
        name = request.path_params["name"]
        if name not in self.folder.names:
            raise HTTPException(404, "no such picture in the folder")
        return name


def build(page: Page, token: str | None) -> Guard:
    """The ASGI application."""
    compress = Middleware(GZipMiddleware, minimum_size=1024, compresslevel=1)
    return Guard(Starlette(routes=page.routes(), middleware=[compress]), token)


def _answering(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientDisconnect:
            return Response(status_code=400)
        except (ValueError, OSError) as error:
            return PlainTextResponse(" ".join(str(error).split()), 422)

    return answer


async def _body(request: Request, most: int) -> bytes:
    """The body; 413 as soon as it is longer than `most` bytes."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise HTTPException(413, f"found more than the {most} bytes that the rectangle needs")
    return bytes(body)


def _number(request: Request, key: str) -> int:
    """A whole number of the query, from 0; raises ValueError."""
    text = request.query_params.get(key, "")
    with suppress(ValueError):
        if text.isascii() and len(text) < 10 and int(text) >= 0:
            return int(text)
    raise ValueError(f"found {key}={text[:20]!r}, expected a whole number from 0")


def _pixels(pixels: np.ndarray, headers: dict[str, str]) -> Response:
    """The bytes uint8 `[H, W]` of pixels, row by row, and their size."""
    size = {"X-Height": str(pixels.shape[0]), "X-Width": str(pixels.shape[1])}
    return Response(pixels.tobytes(), headers=headers | size, media_type="application/octet-stream")
