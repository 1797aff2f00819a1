"""Prediction by networks, and by both kinds of members."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from generators.base import FeatureMaps
from labelers.config import LabelerConfig, NetworkTraining
from labelers.ensemble.classifiers import Ensemble
from labelers.ensemble.inference import FoldedEnsemble
from labelers.labeler import GeneratorInfo, Labeler, LabelerInfo

from .conftest import toy


@pytest.fixture(scope="module")
def features() -> FeatureMaps:
    rng = torch.Generator().manual_seed(3)
    return FeatureMaps({"a": torch.randn(4, 3, 8, 8, generator=rng)})


@pytest.fixture(scope="module")
def ensemble(features: FeatureMaps, trained: Labeler) -> Labeler:
    config = trained.info.config.model_copy(
        update={"kind": "ensemble", "members": 3, "hidden": (6, 5)}
    )
    rng = torch.Generator().manual_seed(0)
    members = Ensemble(features.spec, 3, (6, 5), 3, rng)
    for tensor in members.state_dict().values():
        tensor += torch.rand(tensor.shape, generator=rng)
    changes = {"config": config, "features": features.spec, "unet": None, "scores": {"steps": 7}}
    return Labeler(members.eval(), trained.info.model_copy(update=changes))


@pytest.fixture(scope="module")
def both(ensemble: Labeler, trained: Labeler) -> Labeler:
    return Labeler.both(ensemble, trained)


def entropy(p: torch.Tensor) -> torch.Tensor:
    """`[..., K, H, W]` -> `[..., H, W]`, nats."""
    return -(p * p.clamp(min=1e-30).log()).sum(-3)


def member_probabilities(labeler: Labeler, images: torch.Tensor) -> torch.Tensor:
    """`[M, N, K, H, W]`, one network at a time on the whole batch: means over the eight views."""
    x = images.float() / 127.5 - 1
    members = []
    with torch.no_grad():
        for net in labeler.networks.nets:
            seen = [
                net(x.rot90(k, (2, 3)).flip(flipped)).softmax(1).flip(flipped).rot90(-k, (2, 3))
                for k in range(4)
                for flipped in ((), (3,))
            ]
            members.append(torch.stack(seen).mean(0))
    return torch.stack(members)


def test_the_mean_of_the_members(trained: Labeler) -> None:
    images, _ = toy(seed=1)
    found = trained.predict(images, probabilities=True)
    p = member_probabilities(trained, images)
    torch.testing.assert_close(found.probabilities, p.mean(0), rtol=1e-4, atol=1e-5)
    assert torch.equal(found.mask, found.probabilities.argmax(1).to(torch.uint8))
    js = entropy(p.mean(0)) - entropy(p).mean(0)
    torch.testing.assert_close(found.pixel_uncertainty, js, rtol=1e-3, atol=1e-5)
    top = found.pixel_uncertainty.flatten(1).sort(1, descending=True)[0][:, :25]
    torch.testing.assert_close(found.uncertainty, top.mean(1))
    asked = trained.predict(images, uncertainty="entropy")
    torch.testing.assert_close(asked.pixel_uncertainty, entropy(p.mean(0)), rtol=1e-3, atol=1e-5)
    assert asked.probabilities is None


def test_a_turned_image_has_the_turned_probabilities(trained: Labeler) -> None:
    images, _ = toy(seed=1)
    found = trained.predict(images, probabilities=True).probabilities
    turned = trained.predict(images.rot90(1, (2, 3)).flip(3), probabilities=True).probabilities
    torch.testing.assert_close(turned.flip(3).rot90(-1, (2, 3)), found, rtol=1e-4, atol=1e-5)
    network = trained.info.config.network.model_copy(update={"averaged": False})
    config = trained.info.config.model_copy(update={"network": network})
    single = replace(trained, info=trained.info.model_copy(update={"config": config}))
    x = images.float() / 127.5 - 1
    with torch.no_grad():
        plain = torch.stack([net(x).softmax(1) for net in trained.networks.nets]).mean(0)
    torch.testing.assert_close(single.predict(images, probabilities=True).probabilities, plain)


@pytest.mark.parametrize(
    ("settings", "is_square", "count"),
    [
        ({}, True, 8),
        ({}, False, 4),
        ({"quarter_turns": False}, True, 4),
        ({"flips": False}, True, 4),
        ({"flips": False}, False, 1),
        ({"averaged": False}, True, 1),
    ],
)
def test_as_many_views_as_training_has(
    trained: Labeler, settings: dict, is_square: bool, count: int
) -> None:
    config = trained.info.config.model_copy(update={"network": NetworkTraining(**settings)})
    labeler = replace(trained, info=trained.info.model_copy(update={"config": config}))
    assert len(labeler._views(torch.zeros(1, 3, 16, 16 if is_square else 8))) == count


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_image_does_not_depend_on_its_batch(trained: Labeler, dtype: torch.dtype) -> None:
    images, _ = toy(seed=2, images=6)
    labeler = replace(trained, dtype=dtype)
    whole = labeler.predict(images)
    for i in range(6):
        alone = labeler.predict(images[i : i + 1])
        assert torch.equal(alone.mask[0], whole.mask[i])
        assert torch.equal(alone.pixel_uncertainty[0], whole.pixel_uncertainty[i])
    assert labeler.predict(images[:0]).mask.shape == (0, 16, 16)


def test_masks_of_a_different_size(trained: Labeler) -> None:
    images, _ = toy(seed=1)
    found = trained.predict(images, size=(32, 24), probabilities=True)
    assert found.mask.shape == (4, 32, 24)
    views = trained._views(images)
    logits = torch.stack(list(trained.networks.logits(images, (16, 16), torch.float32, views)))
    maps = logits.unflatten(3, (16, 16)).transpose(0, 1)  # [M, N, K, h, w]
    large = [F.interpolate(member, (32, 24), mode="bilinear").softmax(1) for member in maps]
    torch.testing.assert_close(found.probabilities, torch.stack(large).mean(0))


def test_each_teacher_has_half_of_the_say(
    both: Labeler, ensemble: Labeler, trained: Labeler, features: FeatureMaps
) -> None:
    images, _ = toy(seed=1)
    assert both.needs_features
    found = both.predict(images, features, probabilities=True)
    ours = ensemble.predict(None, features, (16, 16), probabilities=True)
    theirs = trained.predict(images, probabilities=True)
    mean = (ours.probabilities + theirs.probabilities) / 2
    torch.testing.assert_close(found.probabilities, mean)
    assert torch.equal(found.mask, found.probabilities.argmax(1).to(torch.uint8))
    # The divergence between the teachers, and the mean of that within each.
    between = entropy(mean) - (entropy(ours.probabilities) + entropy(theirs.probabilities)) / 2
    within = (ours.pixel_uncertainty + theirs.pixel_uncertainty) / 2
    torch.testing.assert_close(found.pixel_uncertainty, between + within, rtol=1e-3, atol=1e-5)


def test_the_ensemble_gives_probabilities_when_asked(
    ensemble: Labeler, features: FeatureMaps
) -> None:
    found = ensemble.predict(None, features, probabilities=True)
    assert ensemble.predict(None, features).probabilities is None
    expected = torch.zeros(4, 3, 256)
    for run, pixels, logits in FoldedEnsemble(ensemble.ensemble).logits(features, (16, 16)):
        expected[run.start, :, pixels] = logits.softmax(1).mean(0)
    torch.testing.assert_close(found.probabilities, expected.view(4, 3, 16, 16))


def test_what_a_labeler_reads_must_be_there(
    both: Labeler, trained: Labeler, features: FeatureMaps
) -> None:
    images, _ = toy()
    with pytest.raises(ValueError, match=r"reads images of \(16, 16\), found \(8, 16\)"):
        trained.predict(images[:, :, :8])
    with pytest.raises(ValueError, match=r"reads images of \(16, 16\), found None"):
        trained.predict(None)
    with pytest.raises(ValueError, match="reads feature maps a 3x8x8, found none"):
        both.predict(images)
    with pytest.raises(ValueError, match=r"different numbers: \[3, 4\]"):
        both.predict(images[:3], features)


def test_round_trip(both: Labeler, trained: Labeler, features: FeatureMaps, tmp_path: Path) -> None:
    images, _ = toy()
    assert both.info.scores["steps"] == 7
    assert both.info.scores["network_steps"] == 30
    for labeler, name in ((trained, "network"), (both, "both")):
        labeler.save(tmp_path / name)
        loaded = Labeler.load(tmp_path / name)
        assert loaded.info.model_copy(update={"weights_sha256": ""}) == labeler.info
        ours, theirs = labeler.predict(images, features), loaded.predict(images, features)
        assert torch.equal(ours.mask, theirs.mask)
        assert torch.equal(ours.pixel_uncertainty, theirs.pixel_uncertainty)


@pytest.mark.parametrize(
    "change",
    [
        {"unet": None},
        {"unet": {"block_out_channels": [8]}},
        {"unet": {"norm_num_groups": 0}},
        {"unet": {"unknown": 1}},
        {"classes": ["a", "b"]},
        {"config": LabelerConfig(kind="ensemble", members=3, hidden=(6, 5))},
        {"config": LabelerConfig(kind="network")},
    ],
)
def test_a_description_of_different_weights(both: Labeler, tmp_path: Path, change: dict) -> None:
    both.save(tmp_path)
    file = tmp_path / "labeler.json"
    content = LabelerInfo.model_validate_json(file.read_bytes()).model_copy(update=change)
    file.write_text(content.model_dump_json())
    with pytest.raises(ValueError, match=r"does not describe labeler\.safetensors") as caught:
        Labeler.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_ensemble_of_the_format_before_networks(
    ensemble: Labeler, features: FeatureMaps, tmp_path: Path
) -> None:
    ensemble.save(tmp_path)
    file = tmp_path / "labeler.json"
    content = json.loads(file.read_text())
    assert content["format_version"] == 3
    del content["unet"], content["config"]["kind"], content["config"]["network"]
    file.write_text(json.dumps({**content, "format_version": 2}))
    loaded = Labeler.load(tmp_path)
    found, expected = loaded.predict(None, features), ensemble.predict(None, features)
    assert torch.equal(found.mask, expected.mask)
    assert torch.equal(found.pixel_uncertainty, expected.pixel_uncertainty)


def test_check_wants_the_same_generator_but_no_features(trained: Labeler, both: Labeler) -> None:
    generator = SimpleNamespace(digest="g" * 64, feature_spec=(), feature_settings={})
    trained.check(generator)
    with pytest.raises(ValueError, match="reads feature maps a 3x8x8"):
        both.check(generator)
    info = trained.info.model_copy(update={"generator": GeneratorInfo(digest="h" * 64)})
    with pytest.raises(ValueError, match=r"belongs to generator hhhhhhhhhhhh"):
        replace(trained, info=info).check(generator)
