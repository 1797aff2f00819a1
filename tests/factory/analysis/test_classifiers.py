"""Table 7: which classifiers are compared, and what counts as a gain."""

from __future__ import annotations

import json

import pytest

from factory.analysis.classifiers import ETF_WEIGHT, variant
from factory.analysis.judging import Gain, does_not_help
from labelers.config import LabelerConfig


def test_wider_is_twice_as_wide_and_deeper_has_each_layer_twice() -> None:
    config = LabelerConfig()
    assert variant(config, "wider", 28).hidden == (256, 64)
    assert variant(config, "deeper", 28).hidden == (128, 128, 32, 32)
    assert variant(config, "wider", 34).hidden == (512, 256)
    assert variant(config, "original", 28).hidden_for(28) == (128, 32)
    etf = variant(config, "etf", 28)
    assert (etf.etf_weight, etf.hidden_for(28)) == (ETF_WEIGHT, (128, 32))


@pytest.mark.parametrize(
    ("gain", "outcome"),
    [
        (Gain(0.1, 0.05, []), "does not hold"),
        (Gain(0.03, 0.05, []), "holds"),
        (Gain(-0.2, 0.05, []), "holds"),
        (Gain(0.03, None, []), "undecided"),
    ],
)
def test_what_is_within_the_deviation_or_worse_does_not_help(gain: Gain, outcome: str) -> None:
    assert does_not_help(gain) == outcome


def test_the_table(analyse, tmp_path) -> None:
    result = analyse("classifiers")
    assert result.code == 0, result.err
    found = json.loads((tmp_path / "out" / "classifiers.json").read_text())
    scores = {row["classifiers"]: row["mIoU"]["mean"] for row in found["rows"]}
    assert list(scores) == [
        "original",
        "twice wider",
        "twice deeper",
        "DDPM_V: soft vote",
        "DDPM_E: ETF",
        "DDPM_VE: both",
    ]
    # A single member has no one to vote with.
    assert scores["DDPM_V: soft vote"] == scores["original"]
    assert "larger pixel classifiers do not help" in found["sentence"]
    assert "DDPM_VE) help" in found["sentence"]


def test_too_narrow_for_the_regulariser(analyse) -> None:
    result = analyse("classifiers", "--set", "labeler.hidden=[4,1]")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "found 1 units for 2 classes" in result.err
    result = analyse("classifiers", "--set", "labeler.etf_weight=0.1")
    assert "labeler.etf_weight is 0.1, expected 0" in result.err
