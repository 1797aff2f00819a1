"""Learning rates and the reference's stopping rule."""

from __future__ import annotations

import pytest

from labelers.config import FastTraining, ReferenceTraining
from labelers.training.schedule import StoppingRule, learning_rate


def test_the_reference_has_a_constant_rate():
    training = ReferenceTraining(lr=0.25)
    assert {learning_rate(training, step) for step in (0, 10, 10**6)} == {0.25}


@pytest.mark.parametrize("steps", [1, 2, 7, 400])
def test_the_fast_rate_rises_and_falls_to_nearly_zero(steps):
    training = FastTraining(lr=0.5, steps=steps)
    rates = [learning_rate(training, step) for step in range(steps)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == pytest.approx(0.5)
    assert min(rates) > 0
    if steps == 400:
        assert top == 19
        assert rates[-1] < 1e-4


def test_stopping_rule():
    rule = StoppingRule(members=2, patience=3)
    batches = [(0.5, 0.5), (0.4, 0.6), (0.4, 0.6), (0.5, 0.5), (0.3, 0.1), (0.3, 0.1)]
    assert [rule.update(b) for b in batches] == [[], [], [], [1], [], []]
    assert rule.stopped == [False, True]
    assert [rule.update((0.9, 0.9)) for _ in range(2)] == [[], [0]]
