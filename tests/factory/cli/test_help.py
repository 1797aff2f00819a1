"""`--help` of every command is immediate, because nothing heavy is imported for it."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {"torch", "torchvision", "diffusers", "lightning", "ray", "pandas", "scipy", "transformers"}
# Show all in one process, the application first; print what has been imported after each.
PROGRAM = """
import contextlib, io, json, sys
from factory.cli import main

def imported(*command):
    sys.argv = ["factory", *command, "--help"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            main()
        except SystemExit as stop:
            assert not stop.code, stop.code
    assert "Usage: factory" in printed.getvalue()
    return sorted({name.split(".")[0] for name in sys.modules})

found = {"": imported()}
import typer
from factory.cli.application import app
for verb in typer.main.get_command(app).commands:
    found[verb] = imported(verb)
print(json.dumps(found))
"""


def test_help_imports_nothing_heavy() -> None:
    program = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"", "generate", "train-generator", "train-labeler", "predict"} < found.keys()
    assert [verb for verb, modules in found.items() if HEAVY & set(modules)] == []
