"""factory.reports.page: escaping, the content policy, pictures."""

from __future__ import annotations

import base64
import hashlib
import io
import re

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from factory.reports.page import Fact, Page, Section, Tile, facts, note, parts, render, table
from factory.reports.page.pictures import SIDE_PX, mask_uri, picture_uri

EVIL = "<script>alert(1)</script>"


def page(**changes: object) -> str:
    section = Section("What was dropped", EVIL, [note(EVIL), facts([Fact(EVIL, EVIL)])])
    content = {
        "title": EVIL,
        "kind": "Dataset",
        "summary": EVIL,
        "opening": [],
        "sections": [section],
    }
    return render(Page(**{**content, **changes})).decode()  # type: ignore[arg-type]


def test_all_text_is_escaped():
    text = page()
    assert EVIL not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 7  # the title twice
    assert EVIL not in table([EVIL], [[EVIL, EVIL]], EVIL)
    tile = Tile(EVIL, EVIL, EVIL, EVIL, details=EVIL)
    for made in (parts.gallery([tile], [EVIL], EVIL), parts.strip(EVIL, [tile], EVIL)):
        assert isinstance(made, Markup)
        assert EVIL not in made


def test_only_the_page_s_own_script_and_style_apply():
    text = page()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    rules = policy[1].replace("&#39;", "'")
    assert "default-src 'none'" in rules
    assert "unsafe" not in rules
    for kind in ("style", "script"):
        (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in rules


def test_sections_can_be_linked_to():
    text = page()
    assert 'href="#what-was-dropped"' in text
    assert 'id="what-was-dropped"' in text


def test_words_in_backquotes_are_code():
    assert note("add `--real <DIR>`") == Markup(
        '<p class="note">add <code>--real &lt;DIR&gt;</code></p>'
    )


def test_numbers():
    assert parts.whole(50_000) == "50\u202f000"
    assert parts.percent(0.1234) == "12.3 %"
    assert parts.percent(None) == parts.score(float("nan")) == "–"


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize(("height", "width"), [(20, 30), (300, 600)])
def test_pictures_shrink_but_do_not_grow(height: int, width: int):
    image = np.full((3, height, width), 90, np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 2 :] = 1
    mask[:, width // 2 :] = 255
    picture = decoded(picture_uri(image))
    seen = decoded(mask_uri(mask, [[0, 0, 0], [250, 20, 30]])).convert("RGBA")
    scale = min(1, SIDE_PX / max(height, width))
    assert picture.size == seen.size == (round(width * scale), round(height * scale))
    assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - 90).max() < 4
    pixels = np.asarray(seen)
    assert pixels[0, 0, 3] == 0  # black class
    assert pixels[0, -1, 3] == 0  # ignored
    assert pixels[-1, 0].tolist() == [250, 20, 30, 255]
