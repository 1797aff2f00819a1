"""What several packages' tests share: running the command line as a user does."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from factory import cli


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def factory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable:
    """`factory("evaluate", "--demo")` -> exit code, standard output, standard error."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["factory", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run
