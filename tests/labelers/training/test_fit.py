"""Training on toy problems: it learns, is deterministic, resumes, and follows the rules."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from generators.base import FeatureMaps
from labelers.config import FastTraining, LabelerConfig, ReferenceTraining
from labelers.labeler import GeneratorInfo, Labeler
from labelers.training.feature_store import FeatureStore
from labelers.training.fit import fit
from labelers.training.schedule import StoppingRule
from labelers.training.trainer import Report

CONFIG = LabelerConfig(
    members=3, hidden=(16, 8), training=ReferenceTraining(min_epochs=1, max_epochs=2)
)
FAST = CONFIG.model_copy(
    update={"training": FastTraining(steps=105, batch_pixels=128, precision="float32")}
)
KINDS = pytest.mark.parametrize("config", [CONFIG, FAST], ids=["reference", "fast"])
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


def with_training(**changes) -> LabelerConfig:
    training = CONFIG.training.model_copy(update=changes)
    return CONFIG.model_copy(update={"training": training})


def train(config: LabelerConfig = CONFIG, **extra) -> Labeler:
    features, masks = toy()
    return fit(
        extra.pop("features", features),
        extra.pop("masks", masks),
        config,
        classes=CLASSES,
        generator=GeneratorInfo(digest="g" * 64),
        data_digest="d" * 64,
        **extra,
    )


def same_weights(a: Labeler, b: Labeler) -> bool:
    ours, theirs = a.ensemble.state_dict(), b.ensemble.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@KINDS
def test_learns_and_reports(config):
    seen: list[Report] = []
    labeler = train(config, progress=seen.append)
    features, masks = toy(seed=1)  # the same shapes in different noise
    prediction = labeler.predict(None, features)
    assert (prediction.mask == masks).float().mean() > 0.97
    steps = [report.step for report in seen]
    assert steps == sorted(set(steps))
    assert steps[-1] == seen[-1].total == labeler.info.scores["steps"]
    assert seen[-1].loss < seen[0].loss
    assert len(seen[-1].accuracy) == 3
    assert min(seen[-1].accuracy) > 0.95
    assert labeler.info.scores["train_accuracy"] == pytest.approx(sum(seen[-1].accuracy) / 3)


@KINDS
def test_the_seed_decides_the_weights(config):
    first = train(config)
    assert same_weights(first, train(config))
    other = train(config.model_copy(update={"seed": 1}))
    a, b = first.ensemble.linears[0].weight, other.ensemble.linears[0].weight
    assert not torch.equal(a, b)
    assert not torch.equal(a[0], a[1])


@KINDS
def test_does_not_touch_the_global_random_state(config):
    before = torch.get_rng_state()
    train(config)
    assert torch.equal(torch.get_rng_state(), before)


def test_max_epochs_ends_training():
    labeler = train(with_training(max_epochs=1, min_epochs=4))
    assert labeler.info.scores["steps"] == 4 * 32 * 32 // 64


def test_batches_larger_than_the_data():
    labeler = train(with_training(batch_pixels=10**6, max_epochs=2))
    assert labeler.info.scores["steps"] == 2


def test_bfloat16_products_learn_too():
    labeler = train(FAST, dtype=torch.bfloat16)
    assert not same_weights(labeler, train(FAST))
    assert labeler.ensemble.linears[0].weight.dtype == torch.float32
    features, masks = toy(seed=1)
    assert (labeler.predict(None, features).mask == masks).float().mean() > 0.97


@KINDS
def test_features_on_disk_give_the_same_result(config, tmp_path):
    features, _ = toy()
    store = FeatureStore(tmp_path, features.spec, 4, "float32")
    store.append(features)
    assert same_weights(train(config, features=store), train(config))


def test_normalisation_ends_in_the_weights():
    """Channels of any scale and offset give the same labeler, except for the first layer."""
    features, _ = toy()
    moved = FeatureMaps({name: 50 * tensor + 200 for name, tensor in features.items()})
    plain, other = train(FAST), train(FAST, features=moved)
    assert torch.equal(plain.predict(None, features).mask, other.predict(None, moved).mask)


def test_balanced_classes_are_found_more_often():
    """A class of 21 pixels in 4096 that the features barely separate from the background."""
    _, masks = toy()
    masks[masks == 2] = 0
    masks[0, :3, :7] = 2
    clues = torch.stack([masks == 1, masks == 2], 1)
    noise = torch.randn(clues.shape, generator=torch.Generator().manual_seed(7))
    features = FeatureMaps({"a": clues + noise})
    found = {}
    for weights in ("none", "balanced"):
        config = FAST.model_copy(update={"class_weights": weights})
        labeler = train(config, features=features, masks=masks)
        found[weights] = (labeler.predict(None, features).mask == 2).sum()
    assert found["none"] < found["balanced"]


def stop_after(monkeypatch, steps: list[int]) -> None:
    """Make each member stop after its own number of steps, whatever its loss."""

    def update(self: StoppingRule, losses):
        self.since = [n + 1 for n in self.since]
        self.stopped = [n >= s for n, s in zip(self.since, steps, strict=True)]
        return [m for m, s in enumerate(steps) if self.since[m] == s]

    monkeypatch.setattr(StoppingRule, "update", update)


def test_a_stopped_member_keeps_its_weights(monkeypatch):
    config = with_training(min_epochs=0)
    stop_after(monkeypatch, [5, 5, 5])
    short = train(config)
    stop_after(monkeypatch, [5, 9, 9])
    mixed = train(config)
    assert (short.info.scores["steps"], mixed.info.scores["steps"]) == (5, 9)
    theirs = short.ensemble.state_dict()
    for name, ours in mixed.ensemble.state_dict().items():
        same = [torch.equal(a, b) for a, b in zip(ours, theirs[name], strict=True)]
        assert same == [True, False, False], name


class Killed(Exception):
    """The end of a process in the middle of its work."""


def interrupted_at(step: int):
    def progress(report: Report) -> None:
        if report.step == step:
            raise Killed

    return progress


@pytest.mark.parametrize(
    "config",
    [CONFIG, FAST, FAST.model_copy(update={"class_weights": "balanced", "etf_weight": 0.4})],
    ids=["reference", "fast", "variants"],
)
def test_an_interrupted_training_ends_with_the_same_weights(config, tmp_path, monkeypatch):
    monkeypatch.setattr("labelers.training.trainer.CHECKPOINT_SEC", 0)
    whole = train(config)
    checkpoint, seen = tmp_path / "checkpoint", []
    with pytest.raises(Killed):
        train(config, checkpoint=checkpoint, progress=interrupted_at(100))
    resumed = train(config, checkpoint=checkpoint, progress=seen.append)
    assert seen[0].step == 100  # only the steps since the checkpoint at 50 were lost
    assert same_weights(whole, resumed)
    assert whole.info == resumed.info


def test_members_that_stopped_before_the_interruption(tmp_path, monkeypatch):
    monkeypatch.setattr("labelers.training.trainer.CHECKPOINT_SEC", 0)
    stop_after(monkeypatch, [20, 70, 110])
    config, checkpoint = with_training(min_epochs=0), tmp_path / "checkpoint"
    whole = train(config)
    with pytest.raises(Killed):
        train(config, checkpoint=checkpoint, progress=interrupted_at(100))
    assert same_weights(whole, train(config, checkpoint=checkpoint))


def test_a_checkpoint_of_a_different_training_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("labelers.training.trainer.CHECKPOINT_SEC", 0)
    checkpoint = tmp_path / "checkpoint"
    train(checkpoint=checkpoint)
    with pytest.raises(ValueError, match="checkpoint belongs to a training with different"):
        train(CONFIG.model_copy(update={"seed": 1}), checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(ValueError, match="checkpoint is damaged"):
        train(checkpoint=checkpoint)


def test_the_etf_regulariser_changes_every_layer_of_every_member():
    plain, regularised = train(FAST), train(FAST.model_copy(update={"etf_weight": 0.4}))
    for a, b in zip(plain.ensemble.linears, regularised.ensemble.linears, strict=True):
        assert (a.weight - b.weight).abs().amax((1, 2)).min() > 1e-3


def test_the_etf_regulariser_needs_width():
    config = CONFIG.model_copy(update={"etf_weight": 0.4, "hidden": (16, 2)})
    with pytest.raises(ValueError, match="found 2 units for 3 classes"):
        train(config)


@pytest.mark.parametrize("hidden", [(40,), (16, 12, 8, 6)])
def test_wider_and_deeper_members(hidden):
    labeler = train(FAST.model_copy(update={"hidden": hidden}))
    features, masks = toy(seed=1)
    assert (labeler.predict(None, features).mask == masks).float().mean() > 0.97


def test_masks_and_images_must_match():
    with pytest.raises(ValueError, match="3 masks for features of 4 images"):
        train(masks=toy()[1][:3])
