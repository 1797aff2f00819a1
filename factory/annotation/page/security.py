"""Who may ask: this machine's browser on this page, and nobody else.

A page of another site can send requests to this machine (CSRF), and can make its own name resolve
to it (DNS rebinding). So the name in Host must be one of this machine, a request that changes
something must come from this page (Origin), and others may not embed what is served here. Beyond
the loopback address a token is needed as well: once in the address, then in a cookie.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = ("GET", "HEAD")
COOKIE = "factory-annotate"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server at `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """The ASGI application `app` behind the checks above; `token` is None on loopback."""

    def __init__(self, app: ASGIApp, token: str | None):
        self.app, self.token = app, token
        self.cookie = f"{COOKIE}-{secrets.token_hex(4)}"  # cookies are shared by all ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = self._refusal(scope) or self._admission(scope)
        await (answer or self.app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._is_ours(_name(host)):
            return _refuse(f"the Host {host!r} is not this machine's", 421)
        origin = headers.get("origin")
        if origin is None and scope["method"] not in SAFE_METHODS:
            return _refuse("a request without Origin may change nothing")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return _refuse(f"the Origin {origin!r} is not this page")
        site = headers.get("sec-fetch-site", "none")
        navigates = headers.get("sec-fetch-mode") == "navigate" and scope["path"] == "/"
        if site not in ("same-origin", "none") and not navigates:
            return _refuse("a page of another site may not read this one")
        return None

    def _is_ours(self, name: str) -> bool:
        """Whether Host may be `name`: on loopback its names, else this machine's or any address."""
        if is_loopback(name):
            return True
        if self.token is None:
            return False
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            own = socket.gethostname().lower()
            return name in (own, own.split(".")[0], f"{own.split('.')[0]}.local")

    def _admission(self, scope: Scope) -> PlainTextResponse | RedirectResponse | None:
        """None for who has the token; from the address it moves into a cookie."""
        if self.token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and scope["path"] == "/" and self._is_token(given):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="lax")
            return answer
        try:
            cookies = SimpleCookie(Headers(scope=scope).get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        kept = cookies.get(self.cookie)
        if kept is not None and self._is_token(kept.value):
            return None
        return _refuse("open the address that `factory annotate` printed: it holds a token", 401)

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), (self.token or "").encode())


def _name(host: str) -> str:
    """The name in a Host header, without its port and the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _refuse(why: str, code: int = 403) -> PlainTextResponse:
    return PlainTextResponse(why, code)
