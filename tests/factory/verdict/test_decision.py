"""What is recommended, and when nothing is."""

from __future__ import annotations

import pytest

from factory.verdict.contenders import Contender
from factory.verdict.decision import Decision, decide
from factory.verdict.delivery import segmenter_to_deliver
from factory.verdict.wording import sentence

UNET = {0: 0.60, 1: 0.62, 2: 0.58, 3: 0.61}
DEEPLAB = {0: 0.50, 1: 0.54, 2: 0.48, 3: 0.51}
BLIND = {"blind-place": {0: 0.30, 1: 0.33, 2: 0.28, 3: 0.31}}


def plus(scores: dict[int, float], *gains: float) -> dict[int, float]:
    """Scores with a gain per split."""
    return {split: scores[split] + gain for split, gain in enumerate(gains)}


BETTER = plus(UNET, 0.04, 0.05, 0.045, 0.05)
NOISY = plus(UNET, 0.20, -0.10, 0.15, -0.05)
WORSE = plus(UNET, -0.1, -0.11, -0.1, -0.1)


def verdict(**factory: dict[int, float]) -> Decision:
    labels = {"unet": UNET, "deeplab": DEEPLAB}
    names = {name.replace("_", "-"): scores for name, scores in factory.items()}
    return decide(labels, names, BLIND, test_share=1 / 3)


def test_a_significant_lead_wins() -> None:
    found = verdict(photographs_labels=BETTER, synthetic=NOISY)
    assert found.baseline == "unet"
    assert found.winner == "photographs-labels"
    assert found.is_learned
    said = sentence(found, 12)
    assert said.startswith("With your 12 images: photographs-labels, +4.6 ± ")
    assert said.endswith("over labels alone (unet); synthetic images add nothing significant.")


def test_a_higher_mean_alone_does_not() -> None:
    found = verdict(synthetic=NOISY)
    assert found.best == "synthetic"
    assert found.winner == "unet"
    assert "labels alone (unet); nothing is significantly better (closest: synthetic" in sentence(
        found, 12
    )


def test_the_best_labels_only_contender_is_the_measure() -> None:
    """Better than DeepLabV3 is not enough."""
    found = verdict(photographs=plus(DEEPLAB, 0.05, 0.05, 0.05, 0.05))
    assert found.winner == "unet"


def test_synthetic_images_that_harm() -> None:
    said = sentence(verdict(photographs=BETTER, synthetic=WORSE), 12)
    assert "; synthetic images are worse than labels alone" in said


def test_two_splits_say_nothing_of_synthetic_images() -> None:
    """However small their interval."""
    early = {split: UNET[split] - 0.1 for split in (0, 1)}
    assert "synthetic" not in sentence(verdict(photographs=BETTER, synthetic=early), 12)


def test_the_surest_lead_wins() -> None:
    """Three lucky splits with a higher mean do not."""
    lucky = plus(UNET, 0.045, 0.055, 0.06)
    found = verdict(photographs=BETTER, round_1=lucky)
    assert found.differences["round-1"].is_positive
    assert found.differences["round-1"].mean > found.differences["photographs"].mean
    assert found.winner == "photographs"
    assert (
        segmenter_to_deliver(found, [make(n) for n in ("photographs", "round-1", "deeplab")])
        == "photographs"
    )


def test_time_that_ends_within_a_split_does_not_change_the_measure() -> None:
    """The best of the labels alone is so on the splits that the others ran on, too."""
    mean = plus(UNET, 0.05, 0.05, 0.05)  # not on the last split
    found = decide({"unet": UNET, "labels-mean": mean}, {"round-1": BETTER}, BLIND, 1 / 3)
    assert found.baseline == "labels-mean"
    assert found.winner == "labels-mean"
    early = {"unet": UNET, "deeplab": plus(DEEPLAB, 0.2, 0.2)}  # cut after two
    assert decide(early, {}, BLIND, 1 / 3).baseline == "unet"


@pytest.mark.parametrize("winner", ["mixture", "round-1-both", "synthetic"])
def test_a_winner_that_learned_from_samples_is_not_contradicted(winner: str) -> None:
    found = verdict(**{winner.replace("-", "_"): BETTER}, synthetic_labels=NOISY)
    assert found.winner == winner
    assert sentence(found, 12).endswith("over labels alone (unet).")


def test_one_split_recommends_nothing() -> None:
    assert verdict(photographs={0: 0.99}).winner == "unet"


def test_two_splits_recommend_nothing() -> None:
    """However small their interval."""
    labels = {"unet": {0: 0.700, 1: 0.710}}
    found = decide(labels, {"p": {0: 0.800, 1: 0.811}}, {"blind-place": {0: 0.3, 1: 0.31}}, 1 / 3)
    assert found.differences["p"].is_positive
    assert found.winner == "unet"
    assert not found.is_learned


def test_nothing_is_learned_without_a_control() -> None:
    assert not decide({"unet": UNET}, {"photographs": BETTER}, {}, 1 / 3).is_learned


def test_no_better_than_blind_is_not_learned() -> None:
    blind = {"blind-shuffled": plus(UNET, 0.01, -0.02, 0.02, -0.01)}
    found = decide({"unet": UNET}, {}, blind, 1 / 3)
    assert not found.is_learned
    assert found.is_hopeless
    assert sentence(found, 12).startswith("Nothing can be learned from your 12 images")


def test_two_splits_are_no_verdict() -> None:
    """Interrupted by the budget: a large lead, but nothing shown."""
    found = decide({"unet": {0: 0.84, 1: 0.91}}, {}, {"blind-place": {0: 0.59, 1: 0.55}}, 1 / 3)
    assert not found.is_learned
    assert not found.is_hopeless
    assert "no verdict yet, too few splits were scored" in sentence(found, 12)


def make(name: str, is_segmenter: bool = True) -> Contender:
    return Contender(name, name, "factory", lambda bench: None, is_segmenter=is_segmenter)


@pytest.mark.parametrize(("also_better", "wanted"), [(True, "photographs"), (False, "unet")])
def test_a_labeler_is_not_delivered(also_better: bool, wanted: str) -> None:
    best = plus(UNET, 0.08, 0.09, 0.08, 0.08)
    found = verdict(labeler_both=best, photographs=BETTER if also_better else NOISY)
    assert found.winner == "labeler-both"
    every = [make("labeler-both", False), make("photographs"), make("unet"), make("deeplab")]
    assert segmenter_to_deliver(found, every) == wanted


def test_a_segmenter_scored_on_two_splits_is_not_delivered() -> None:
    early = {split: UNET[split] + 0.2 for split in list(UNET)[:2]}  # equal leads: no doubt
    best = plus(UNET, 0.08, 0.09, 0.08, 0.08)
    found = verdict(labeler_both=best, photographs=BETTER, synthetic=early)
    assert found.differences["synthetic"].is_positive
    every = [
        make("labeler-both", False),
        make("photographs"),
        make("synthetic"),
        make("unet"),
        make("deeplab"),
    ]
    assert segmenter_to_deliver(found, every) == "photographs"
