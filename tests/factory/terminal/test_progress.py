"""The progress line where people see it: a terminal, a log file, a notebook."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from factory.terminal.views import Reading

RUN = """
import time
from rich.console import Console
from factory.terminal import views
from factory.terminal.progress import ProgressLine

views.LOG_EVERY_SEC = 0.3
with ProgressLine("making", "images", 30, Console(), "some/out") as line:
    for i in range(1, 31):
        time.sleep(0.05)
        line.update(i, f"loss {1 / i:.2f} [a]")
"""
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|38|9[0-7])\b[0-9;]*m")


def in_terminal(**environment: str) -> str:
    """What RUN writes to a terminal of 120 columns."""
    ours, theirs = pty.openpty()
    settings = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **environment}
    with subprocess.Popen(
        [sys.executable, "-c", RUN], stdin=theirs, stdout=theirs, stderr=theirs, env=settings
    ) as process:
        os.close(theirs)
        chunks = []
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not chunk:
                break
            chunks.append(chunk)
        os.close(ours)
    assert process.returncode == 0
    return b"".join(chunks).decode()


def test_a_terminal_shows_one_moving_line() -> None:
    text = in_terminal()
    frames = text.split("\r")
    assert sum("images" in frame for frame in frames) > 2  # redrawn in place
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    last = plain.strip().splitlines()[-1]
    assert last.startswith("making")
    for part in ("30/30", "images", "/s", "< 0:00", "loss 0.03 [a]", "writing some/out"):
        assert part in last
    assert COLOUR.search(text)


def test_a_narrow_terminal_cuts_the_line() -> None:
    text = in_terminal(COLUMNS="80")
    assert "\x1b[1A" not in text  # no line above to go back to
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    (line,) = (part for part in text.strip().split("\n") if part.strip())
    last = line.split("\r")[-1].strip() or line.split("\r")[-2].strip()
    assert last.startswith("making")
    assert len(last) <= 80


def test_no_color_is_respected() -> None:
    text = in_terminal(NO_COLOR="1")
    assert "30/30" in text
    assert not COLOUR.search(text)


def test_a_log_has_whole_lines_at_intervals() -> None:
    run = subprocess.run([sys.executable, "-c", RUN], capture_output=True, check=True)
    text = (run.stdout + run.stderr).decode()
    assert "\r" not in text
    assert "\x1b" not in text
    lines = text.splitlines()
    assert 2 <= len(lines) <= 6  # of 30 updates in 1.5 s or more
    pattern = (
        r"making \d+/30 images  \d+\.\d/(s|min)  0:0\d left  loss 0\.\d\d \[a\]  writing some/out"
    )
    assert all(re.fullmatch(pattern, line) for line in lines), text


def test_a_log_shows_life_while_nothing_is_reported() -> None:
    silent = RUN.split("    for i")[0].replace(
        "from factory.terminal import", "from factory.terminal import progress,"
    )
    program = (
        silent.replace("views.LOG", "progress.HEARTBEAT_SEC = 0.1\nviews.LOG")
        + "    time.sleep(1)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lines = run.stdout.splitlines()
    assert 2 <= len(lines) <= 3
    assert set(lines) == {"making 0/30 images  -:-- left  writing some/out"}


@pytest.mark.slow
def test_a_notebook_shows_one_updating_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(RUN)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    text = output.data["text/plain"]
    assert text.startswith("making 30/30 images")
    assert text.endswith("0:00 left  loss 0.03 [a]  writing some/out")


@pytest.mark.parametrize(
    ("per_sec", "left_sec", "text"),
    [
        (None, None, "making 3/9 images  -:-- left"),
        (7.76, 187.9, "making 3/9 images  7.8/s  3:07 left"),
        (0.07, 43387, "making 3/9 images  4.2/min  12:03:07 left"),
    ],
)
def test_rates_and_times(per_sec: float | None, left_sec: float | None, text: str) -> None:
    assert str(Reading("making", "images", 3, 9, per_sec, left_sec)) == text
