"""Nobody but the page may ask, and nothing outside the folder can be read or written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from factory.annotation.page.folder import Folder
from factory.annotation.page.security import is_loopback
from tests.factory.annotation.page.conftest import CLASSES, draw, save_pictures

Serve = Callable[..., TestClient]
TOKEN = "a-long-random-token"


@pytest.mark.parametrize("host", ["127.0.0.1:8321", "localhost:9000", "[::1]:8321", "localhost"])
def test_names_of_this_machine_are_served(serve: Serve, host: str) -> None:
    assert serve().get("/api/state", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8321", "127.0.0.1.evil.example", "", "192.168.0.7:8321"]
)
def test_other_names_are_refused(serve: Serve, host: str) -> None:
    answer = serve().get("/api/state", headers={"Host": host})
    assert answer.status_code == 421
    assert "p0" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},  # another program on this machine
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
def test_pages_of_other_sites_are_refused(
    serve: Serve, annotated: Path, headers: dict[str, str]
) -> None:
    client = serve()
    assert client.get("/api/images/p0/picture.png", headers=headers).status_code == 403
    assert draw(client, "p0", 1, **headers).status_code == 403
    assert not list((annotated / "masks").iterdir())


def test_a_change_needs_an_origin(serve: Serve) -> None:
    answer = serve().put("/api/images/p0/finished?is=1")
    assert (answer.status_code, "without Origin" in answer.text) == (403, True)


def test_a_link_from_elsewhere_may_open_the_page(serve: Serve) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert serve().get("/", headers=headers).status_code == 200


def test_every_answer_forbids_other_sources_and_frames(serve: Serve) -> None:
    client = serve()
    for path in ("/", "/static/main.js", "/api/state", "/nowhere"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"], path
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path
        assert headers["X-Content-Type-Options"] == "nosniff", path


def test_the_token_moves_from_the_address_into_a_cookie(serve: Serve) -> None:
    client = serve(token=TOKEN, follow_redirects=False)
    for path in (
        "/",
        "/api/state",
        "/static/main.js",
        "/?token=wrong",
        f"/api/state?token={TOKEN}",
    ):
        assert client.get(path).status_code == 401, path
    moved = client.get(f"/?token={TOKEN}")
    assert (moved.status_code, moved.headers["Location"]) == (303, "/")
    assert "HttpOnly" in moved.headers["Set-Cookie"]
    assert client.get("/api/state").status_code == 200
    assert draw(client, "p0", 1).status_code == 200
    assert serve(token=TOKEN).get("/api/state").status_code == 401


def test_beyond_loopback_addresses_are_served_but_not_foreign_names(serve: Serve) -> None:
    client = serve(token=TOKEN)
    assert client.get("/api/state", headers={"Host": "192.168.0.7:8321"}).status_code == 401
    assert client.get("/api/state", headers={"Host": "evil.example:8321"}).status_code == 421


def test_loopback() -> None:
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    assert not any(is_loopback(h) for h in ("0.0.0.0", "::", "192.168.0.7", "localhost.evil", ""))


@pytest.mark.parametrize(
    "path",
    [
        "/api/images/..%2f..%2fsecret/picture.png",
        "/api/images/%2e%2e%2fsecret/mask",
        "/api/images/p0%00/mask",
        "/api/images/images%2fp0/picture.png",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/../../../classes.json",
    ],
)
def test_names_are_looked_up_not_joined(serve: Serve, annotated: Path, path: str) -> None:
    Image.new("RGB", (4, 4)).save(annotated.parent / "secret.png")
    assert serve().get(path).status_code == 404


def test_links_out_of_the_folder_are_refused(tmp_path: Path, serve: Serve) -> None:
    outside = save_pictures(tmp_path / "outside")
    place = save_pictures(tmp_path / "photos")
    (place / "link.png").symlink_to(outside / "p0.png")
    with pytest.raises(ValueError, match=r"link\.png leads out of"):
        Folder(place, CLASSES)


def test_links_that_appear_later_are_not_followed(serve: Serve, annotated: Path) -> None:
    client = serve()
    outside = save_pictures(annotated.parent / "outside") / "p0.png"
    before = outside.read_bytes()
    (annotated / "masks" / "p0.png").symlink_to(outside)
    for answer in (client.get("/api/images/p0/mask"), draw(client, "p0", 1, base="x")):
        assert (answer.status_code, "leads out of" in answer.text) == (422, True)
    (annotated / "images" / "p1.png").unlink()
    (annotated / "images" / "p1.png").symlink_to(outside)
    assert client.get("/api/images/p1/picture.png").status_code == 422
    assert outside.read_bytes() == before


def test_the_folder_of_masks_may_not_lead_out_either(tmp_path: Path) -> None:
    place = save_pictures(tmp_path / "photos" / "images").parent
    (tmp_path / "outside").mkdir()
    (place / "masks").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="leads out of"):
        Folder(place, CLASSES)


def test_the_origin_of_a_forwarded_port_is_this_page(serve: Serve) -> None:
    headers = {"Host": "localhost:9000", "Origin": "http://localhost:9000"}
    answer = serve().put("/api/images/p0/finished?is=1", headers=headers)
    assert answer.status_code == 200
