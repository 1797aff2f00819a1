"""What several packages' tests share: running the command line as a user does."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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


@pytest.fixture(scope="session")
def tiny_segmenter() -> Callable:
    """`tiny_segmenter(classes, size, seed)` -> an untrained Segmenter that sees several classes."""

    def make(
        classes: Sequence[str], size: tuple[int, int] = (32, 32), seed: int = 0, **settings: Any
    ) -> Any:
        import torch

        from train_seg.config import SegmenterConfig
        from train_seg.model import Segmenter, build

        config = SegmenterConfig(encoder="resnet18", encoder_depth=3, **settings)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build(config, len(classes), size, pretrained=False)
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):  # else one class wins everywhere
                    assert module.running_mean is not None
                    assert module.running_var is not None
                    module.running_mean.normal_()
                    module.running_var.uniform_(0.1, 1)
        return Segmenter.create(network, config, list(classes), None, size, "0" * 64, {})

    return make
