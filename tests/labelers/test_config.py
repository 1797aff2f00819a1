"""Settings of a labeler."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from labelers.config import FastTraining, LabelerConfig, NetworkTraining, ReferenceTraining


def test_hidden_widths_follow_the_number_of_classes():
    assert LabelerConfig().hidden_for(29) == (128, 32)
    assert LabelerConfig().hidden_for(30) == (256, 128)
    assert LabelerConfig(hidden=(64,)).hidden_for(30) == (64,)


@pytest.mark.parametrize(
    "wrong", [{"memebrs": 3}, {"members": 0}, {"hidden": ()}, {"hidden": (8, 0)}, {"vote": "hard"}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        LabelerConfig(**wrong)


def test_kinds_of_training():
    assert LabelerConfig().training == ReferenceTraining()
    assert LabelerConfig(training={"lr": 0.5}).training == ReferenceTraining(lr=0.5)
    assert LabelerConfig(training={"kind": "fast", "steps": 7}).training == FastTraining(steps=7)
    for config in (LabelerConfig(), LabelerConfig(training=FastTraining(steps=7))):
        assert LabelerConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("wrong", [{"kind": "slow"}, {"steps": 7}, {"kind": "fast", "lr": 0}, 3])
def test_wrong_kinds_of_training_are_refused(wrong):
    with pytest.raises(ValidationError):
        LabelerConfig(training=wrong)


def test_the_kind_names_the_members():
    kinds = [LabelerConfig(kind=kind) for kind in ("ensemble", "network", "both")]
    assert [c.has_ensemble for c in kinds] == [True, False, True]
    assert [c.has_network for c in kinds] == [False, True, True]
    assert LabelerConfig(network={"steps": 7}).network == NetworkTraining(steps=7)
    for wrong in ({"kind": "forest"}, {"network": {"ema": 1}}, {"network": {"members": 0}}):
        with pytest.raises(ValidationError):
            LabelerConfig(**wrong)


def test_importing_the_settings_does_not_import_torch():
    code = "import sys, labelers.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
