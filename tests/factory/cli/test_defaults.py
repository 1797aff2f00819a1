"""The help of every command, with the defaults of settings in it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

COMMANDS = (
    *("generate", "label", "status", "verify", "sample"),
    *("train-generator", "train-labeler", "train-deeplab"),
    *("evaluate", "predict", "export", "convert", "render-demo"),
)


def test_help_lists_every_command(factory: Callable) -> None:
    result = factory("--help")
    assert result.code == 0
    for command in COMMANDS:
        assert f" {command} " in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_reference_is_replaced(factory: Callable, command: str) -> None:
    result = factory(command, "--help")
    assert result.code == 0, result.err
    assert "config:" not in result.out


def test_the_defaults_are_those_of_the_settings(factory: Callable) -> None:
    training = factory("train-generator", "--help").out
    for text in ("by default 64.", "by default 20 000.", "by default 16."):
        assert text in training
    assert "instead of 20 epochs" in factory("train-deeplab", "--help").out
