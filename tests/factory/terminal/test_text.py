"""Wording of amounts."""

import pytest

from factory.terminal.text import byte_size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0.0 MiB"),
        (300 * 2**10, "0.3 MiB"),
        (9.6 * 2**20, "9.6 MiB"),
        (75.4 * 2**20, "75 MiB"),
        (2**30, "1.0 GiB"),
        (36.5 * 2**30, "36.5 GiB"),
    ],
)
def test_bytes(count: float, text: str) -> None:
    assert byte_size(count) == text
