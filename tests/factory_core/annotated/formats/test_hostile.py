"""Files that were made to do harm: one line each, in little memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.factory_core.annotated.formats.hostile import FILES, picture

LIMIT_KIB = 500 * 1024
# One process for all files, because starting it takes longest; its peak is that of the worst.
PROGRAM = """
import contextlib, io, json, sys, time
from pathlib import Path
from factory.cli import main

found = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    name = (folder / "format").read_text()
    sys.argv = ["factory", "annotations", "import", name, str(folder / "source")]
    sys.argv += ["--out", str(folder / "out")]
    out, err = io.StringIO(), io.StringIO()
    began = time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code
    sec = time.perf_counter() - began
    # Of this program only: the usual figure includes that of the process that started it.
    peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
    found[folder.name] = [code, out.getvalue(), err.getvalue(), sec, int(peak)]
print(json.dumps(found))
"""


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak memory")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """Exit code, output, errors, seconds and peak memory so far (KiB), by file."""
    folder, image = tmp_path_factory.mktemp("hostile"), picture()
    for number, hostile in enumerate(FILES.values()):
        source = folder / f"{number:03d}/source"
        source.mkdir(parents=True)
        (source.parent / "format").write_text(hostile.format)
        (source / "a.png").write_bytes(image)
        for name, data in hostile.files().items():
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_bytes(data)
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    kept = {path.parent.name for path in folder.glob("*/out")}
    assert kept == {f"{i:03d}" for i, file in enumerate(FILES.values()) if file.error is None}
    return {name: found[f"{i:03d}"] for i, name in enumerate(FILES)}


@pytest.mark.parametrize("name", FILES)
def test_one_line(name: str, said: dict[str, list]) -> None:
    code, out, err, _, _ = said[name]
    hostile = FILES[name]
    if hostile.error is None:
        assert (code, err) == (0, "")
        assert out.count("\n") == 1
    else:
        assert code == 1, out
        assert re.search(hostile.error, err), err
        assert err.count("\n") == 1
        assert len(err) < 1000


def test_memory(said: dict[str, list]) -> None:
    assert max(peak for *_, peak in said.values()) < LIMIT_KIB
