"""Fine-tuning on toy images: it learns, is deterministic, resumes, and follows the rules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from factory_core.segmentation_unet import UNetDescription
from labelers.config import LabelerConfig
from labelers.labeler import Labeler
from labelers.network.fit import network_budget, network_trainer
from labelers.network.networks import to_unit_range
from labelers.training.trainer import Report

from .conftest import CONFIG, toy


def with_network(**changes) -> LabelerConfig:
    network = CONFIG.network.model_copy(update=changes)
    return CONFIG.model_copy(update={"network": network})


def same_weights(a: Labeler, b: Labeler) -> bool:
    ours, theirs = a.networks.state_dict(), b.networks.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_learns_and_reports(train: Callable[..., Labeler]) -> None:
    seen: list[Report] = []
    labeler = train(progress=seen.append)
    images, masks = toy(seed=1)  # the same shapes in different noise
    assert (labeler.predict(images).mask == masks).float().mean() > 0.97
    assert [report.step for report in seen] == [10, 20, 30, 40, 50, 60]
    assert seen[-1].total == 60
    assert seen[2].loss < seen[0].loss
    assert [len(report.accuracy) for report in seen] == [1, 1, 1, 2, 2, 2]
    scores = labeler.info.scores
    assert scores["steps"] == 30
    assert scores["train_accuracy"] == pytest.approx(sum(seen[-1].accuracy) / 2)
    assert scores["train_accuracy"] > 0.9
    assert labeler.info.config.kind == "network"
    assert not labeler.needs_features


def test_the_seed_decides_the_weights(train: Callable[..., Labeler], trained: Labeler) -> None:
    assert same_weights(trained, train())
    assert not same_weights(trained, train(CONFIG.model_copy(update={"seed": 1})))
    first, second = trained.networks.nets
    assert not torch.equal(first.unet.conv_out.weight, second.unet.conv_out.weight)


def test_does_not_touch_the_global_random_state(train: Callable[..., Labeler]) -> None:
    before = torch.get_rng_state()
    train(with_network(steps=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_members_start_from_the_generator(start: UNetDescription) -> None:
    images, masks = toy()
    trainer = network_trainer(images, masks, start, CONFIG, classes=3)
    state = trainer.net.unet.state_dict()
    assert torch.equal(state["conv_in.weight"], start.weights["conv_in.weight"])
    assert state["conv_out.weight"].shape[0] == 3
    random = network_trainer(images, masks, UNetDescription(start.config), CONFIG, classes=3)
    assert not torch.equal(random.net.unet.conv_in.weight, start.weights["conv_in.weight"])


def test_a_batch_is_moved_and_noisy(start: UNetDescription) -> None:
    images, masks = toy()
    config = with_network(noise=0.0)
    x, moved = network_trainer(images, masks, start, config, 3)._batch(0, 0)
    assert torch.equal(x.amax((1, 2, 3)).sort()[0], to_unit_range(images).amax((1, 2, 3)).sort()[0])
    assert not torch.equal(moved, masks)
    for image, mask in zip(x, moved, strict=True):  # masks follow: bright blue is class 2
        assert ((image[2] > 0.2) == (mask == 2)).float().mean() > 0.95
    still = with_network(noise=0.5, flips=False, quarter_turns=False)
    trainer = network_trainer(images, masks, start, still, 3)
    x, _ = trainer._batch(0, 0)
    order = trainer.orders(0)[0]
    assert (x - to_unit_range(images[order])).std() == pytest.approx(0.5, rel=0.05)


def test_images_that_are_not_square_are_not_turned(train: Callable[..., Labeler]) -> None:
    images, masks = toy()
    labeler = train(with_network(steps=2), images=images[:, :, :8], masks=masks[:, :8])
    assert labeler.predict(images[:, :, :8]).mask.shape == (4, 8, 16)


def test_images_without_labels_do_not_matter(train: Callable[..., Labeler]) -> None:
    images, masks = toy()
    blank = torch.full_like(masks[:2], 255)
    noise = torch.randint(0, 256, images[:2].shape, dtype=torch.uint8)
    more = {"images": torch.cat([images, noise]), "masks": torch.cat([masks, blank])}
    short = with_network(steps=3)
    assert same_weights(train(short), train(short, **more))


def test_balanced_classes_weigh_more(start: UNetDescription) -> None:
    images, masks = toy()
    config = CONFIG.model_copy(update={"class_weights": "balanced"})
    weights = network_trainer(images, masks, start, config, 3).class_weights
    assert weights is not None
    counts = torch.bincount(masks.flatten().long())
    torch.testing.assert_close(weights * counts, (weights * counts)[0].expand(3))
    assert network_trainer(images, masks, start, CONFIG, 3).class_weights is None


class Killed(Exception):
    """The end of a process in the middle of its work."""


@pytest.mark.parametrize("step", [20, 30, 40, 50])  # after 30, the second member begins
def test_an_interrupted_training_ends_with_the_same_weights(
    train: Callable[..., Labeler], trained: Labeler, tmp_path, monkeypatch, step: int
) -> None:
    monkeypatch.setattr("labelers.network.trainer.CHECKPOINT_SEC", 0)
    checkpoint, seen = tmp_path / "checkpoint", []

    def progress(report: Report) -> None:
        if report.step == step:
            raise Killed

    with pytest.raises(Killed):
        train(checkpoint=checkpoint, progress=progress)
    resumed = train(checkpoint=checkpoint, progress=seen.append)
    assert seen[0].step == step  # only the steps since the checkpoint before were lost
    assert same_weights(trained, resumed)
    assert trained.info == resumed.info
    with pytest.raises(ValueError, match="belongs to a training with different settings"):
        train(CONFIG.model_copy(update={"seed": 1}), checkpoint=checkpoint)


def test_a_training_that_diverges_is_refused(train: Callable[..., Labeler]) -> None:
    with pytest.raises(ValueError, match=r"network 1 diverged: set a smaller labeler\.network\.lr"):
        train(with_network(lr=1e30, steps=5))


def test_unusable_annotations(train: Callable[..., Labeler]) -> None:
    _, masks = toy()
    with pytest.raises(ValueError, match="3 masks for 4 images"):
        train(masks=masks[:3])
    with pytest.raises(ValueError, match="hold 1 class to learn"):
        train(masks=torch.zeros_like(masks))


def test_the_budget_counts_every_copy_of_the_weights(start: UNetDescription) -> None:
    weights = sum(t.numel() for t in start.weights.values())
    found = network_budget(start, CONFIG.network)
    assert found.weights == 2 * weights
    assert found.checkpoint_bytes == 4 * weights * 6
