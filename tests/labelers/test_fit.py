"""Training on toy problems: it learns, is deterministic, and keeps the reference's rules."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from generators.base import FeatureMaps
from labelers.config import LabelerConfig
from labelers.fit import StoppingRule, fit, training_pixels
from labelers.labeler import GeneratorInfo, Labeler

CONFIG = LabelerConfig(members=3, hidden=(16, 8), min_epochs=2, max_epochs=4)
CLASSES = ["background", "left", "right"]


def toy(seed: int = 0) -> tuple[FeatureMaps, torch.Tensor]:
    """Four 32x32 images whose maps encode the class of each pixel, in noise."""
    rng = torch.Generator().manual_seed(seed)
    masks = torch.zeros(4, 32, 32, dtype=torch.uint8)
    for i, mask in enumerate(masks):
        mask[4 + i : 24 + i, 2:14], mask[4:28, 18 + i : 28] = 1, 2
    one_hot = F.one_hot(masks.long(), 3).permute(0, 3, 1, 2).float()
    fine = one_hot + 0.3 * torch.randn(one_hot.shape, generator=rng)
    coarse = F.avg_pool2d(one_hot, 4) + 0.1 * torch.randn(4, 3, 8, 8, generator=rng)
    return FeatureMaps({"fine": fine, "coarse": coarse}), masks


def train(config: LabelerConfig = CONFIG, **extra) -> Labeler:
    features, masks = toy()
    return fit(
        features,
        extra.pop("masks", masks),
        config,
        classes=CLASSES,
        generator=GeneratorInfo(digest="g" * 64),
        data_digest="d" * 64,
        **extra,
    )


def test_learns_and_reports():
    seen: list[tuple[int, int, float, float]] = []
    labeler = train(progress=lambda *values: seen.append(values))
    features, masks = toy(seed=1)  # the same shapes in other noise
    prediction = labeler.predict(features)
    assert (prediction.mask == masks).float().mean() > 0.97
    steps, totals, losses, accuracies = zip(*seen, strict=True)
    assert list(steps) == sorted(set(steps))
    assert steps[-1] == totals[-1] == labeler.info.scores["steps"]
    assert losses[-1] < losses[0]
    assert accuracies[-1] == labeler.info.scores["train_accuracy"] > 0.95


def test_same_seed_same_weights_and_another_seed_others():
    first, second = train(), train()
    for a, b in zip(first.ensemble.parameters(), second.ensemble.parameters(), strict=True):
        assert torch.equal(a, b)
    other = train(CONFIG.model_copy(update={"seed": 1}))
    a, b = first.ensemble.linears[0].weight, other.ensemble.linears[0].weight
    assert not torch.equal(a, b)
    assert not torch.equal(a[0], a[1])


def test_does_not_touch_the_global_random_state():
    before = torch.get_rng_state()
    train(CONFIG.model_copy(update={"max_epochs": 1}))
    assert torch.equal(torch.get_rng_state(), before)


def test_max_epochs_ends_training():
    labeler = train(CONFIG.model_copy(update={"max_epochs": 1, "min_epochs": 4}))
    assert labeler.info.scores["steps"] == 4 * 32 * 32 // 64


def test_batches_larger_than_the_data():
    labeler = train(CONFIG.model_copy(update={"batch_pixels": 10**6, "max_epochs": 2}))
    assert labeler.info.scores["steps"] == 2


def stop_after(monkeypatch, steps: list[int]) -> None:
    """Make each member stop after its own number of steps, whatever its loss."""

    def update(self: StoppingRule, losses):
        self.since = [n + 1 for n in self.since]
        self.stopped = [n >= s for n, s in zip(self.since, steps, strict=True)]
        return [m for m, s in enumerate(steps) if self.since[m] == s]

    monkeypatch.setattr(StoppingRule, "update", update)


def test_a_stopped_member_keeps_what_it_had(monkeypatch):
    config = CONFIG.model_copy(update={"min_epochs": 0})
    stop_after(monkeypatch, [5, 5, 5])
    short = train(config)
    stop_after(monkeypatch, [5, 9, 9])
    mixed = train(config)
    assert (short.info.scores["steps"], mixed.info.scores["steps"]) == (5, 9)
    theirs = short.ensemble.state_dict()
    for name, ours in mixed.ensemble.state_dict().items():
        same = [torch.equal(a, b) for a, b in zip(ours, theirs[name], strict=True)]
        assert same == [True, False, False], name


def test_stopping_rule():
    rule = StoppingRule(members=2, patience=3)
    batches = [(0.5, 0.5), (0.4, 0.6), (0.4, 0.6), (0.5, 0.5), (0.3, 0.1), (0.3, 0.1)]
    assert [rule.update(b) for b in batches] == [[], [], [], [1], [], []]
    assert rule.stopped == [False, True]
    assert [rule.update((0.9, 0.9)) for _ in range(2)] == [[], [0]]


def test_small_classes_and_ignored_pixels_are_left_out():
    masks = torch.zeros(2, 8, 8, dtype=torch.uint8)
    masks[0, 0, :4] = 1  # 4 pixels here: too few
    masks[1, :3] = 1  # 24 there
    masks[1, 7] = 255
    pixels = training_pixels(masks, classes=2, min_class_pixels=20)
    kept = torch.zeros(2 * 64, dtype=torch.bool)
    kept[pixels] = True
    expected = torch.ones(2, 8, 8, dtype=torch.bool)
    expected[0, 0, :4] = expected[1, 7] = False
    assert torch.equal(kept.view(2, 8, 8), expected)


def test_masks_that_teach_nothing_are_refused():
    masks = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    masks[0, :4] = 0  # a 0/255 mask: 255 is not a class
    with pytest.raises(ValueError, match=r"hold 1 class to learn \(ids \[0\]; 255 is ignored"):
        training_pixels(masks, classes=2, min_class_pixels=0)


def test_ids_beyond_the_classes_are_refused():
    masks = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    with pytest.raises(ValueError, match="class id 63, expected 5 classes"):
        training_pixels(masks, classes=5, min_class_pixels=0)


def test_as_many_masks_as_images():
    with pytest.raises(ValueError, match="3 masks for features of 4 images"):
        train(masks=toy()[1][:3])
