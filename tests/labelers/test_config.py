"""Settings of a labeler."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from labelers.config import LabelerConfig


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


def test_importing_the_settings_does_not_import_torch():
    code = "import sys, labelers.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_resolve():
    import labelers

    assert all(getattr(labelers, name) for name in labelers.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = labelers.nothing
