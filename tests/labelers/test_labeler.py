"""The artefact: prediction, saving, loading, refusals."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from generators.base import FeatureMaps, FeatureMapSpec
from labelers.config import LabelerConfig
from labelers.ensemble.classifiers import Ensemble
from labelers.labeler import GeneratorInfo, Labeler, LabelerInfo


@dataclass
class StandIn:
    """The properties of a generator that a labeler checks."""

    digest: str
    feature_spec: tuple[FeatureMapSpec, ...]
    feature_settings: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def labeler(random_features: FeatureMaps) -> Labeler:
    config = LabelerConfig(members=3, hidden=(6, 5))
    rng = torch.Generator().manual_seed(0)
    ensemble = Ensemble(random_features.spec, 3, (6, 5), 3, rng)
    for tensor in ensemble.state_dict().values():
        tensor += torch.rand(tensor.shape, generator=rng)
    info = LabelerInfo(
        classes=["a", "b", "c"],
        palette=[[0, 0, 0], [255, 0, 0], [0, 255, 0]],
        features=random_features.spec,
        generator=GeneratorInfo(
            digest="1" * 64, config={"weights": "here", "features": {"noise": "shared"}}
        ),
        image_size=(16, 24),
        data_digest="d" * 64,
        config=config,
        scores={"miou": 0.5},
    )
    return Labeler(ensemble.eval(), info)


def test_golden_prediction(golden, golden_features, golden_ensemble):
    info = LabelerInfo(
        classes=list("abcde"),
        features=golden_features.spec,
        generator=GeneratorInfo(digest=""),
        image_size=(32, 32),
        data_digest="",
        config=LabelerConfig(),
    )
    labeler = Labeler(golden_ensemble, info)
    for vote in ("majority", "soft", "log_soft"):
        prediction = labeler.predict(None, golden_features, vote=vote)
        assert torch.equal(prediction.mask[0], golden[f"{vote}_vote"])
    torch.testing.assert_close(prediction.uncertainty, golden["uncertainty"], rtol=0, atol=1e-5)


def test_prediction_types_and_size(labeler, random_features):
    prediction = labeler.predict(None, random_features, (10, 14))
    assert prediction.mask.shape == prediction.pixel_uncertainty.shape == (2, 10, 14)
    assert prediction.uncertainty.shape == (2,)
    assert prediction.mask.dtype == torch.uint8
    assert prediction.uncertainty.dtype == prediction.pixel_uncertainty.dtype == torch.float32
    assert labeler.predict(None, random_features).mask.shape == (2, 16, 24)


def test_config_gives_vote_and_uncertainty(labeler, random_features):
    """The settings of the artefact apply unless the call overrides them."""
    config = labeler.info.config.model_copy(update={"vote": "soft", "uncertainty": "entropy"})
    changed = replace(labeler, info=labeler.info.model_copy(update={"config": config}))
    ours = changed.predict(None, random_features)
    asked = labeler.predict(None, random_features, vote="soft", uncertainty="entropy")
    other = labeler.predict(None, random_features)
    assert torch.equal(ours.mask, asked.mask)
    assert torch.equal(ours.pixel_uncertainty, asked.pixel_uncertainty)
    assert not torch.equal(ours.pixel_uncertainty, other.pixel_uncertainty)
    again = changed.predict(None, random_features, vote="majority", uncertainty="js")
    assert torch.equal(again.mask, other.mask)
    assert torch.equal(again.pixel_uncertainty, other.pixel_uncertainty)


def test_image_uncertainty_is_computed_from_its_pixels(labeler, random_features):
    prediction = labeler.predict(None, random_features)
    top = prediction.pixel_uncertainty.flatten(1).sort(1, descending=True).values[:, :38]
    torch.testing.assert_close(prediction.uncertainty, top.mean(1))  # 38 = int(16 · 24 / 10)


def test_number_format_of_prediction(labeler, random_features, tmp_path):
    labeler.save(tmp_path)
    assert Labeler.load(tmp_path).dtype == torch.float32
    half = Labeler.load(tmp_path, dtype=torch.bfloat16)
    ours, exact = half.predict(None, random_features), labeler.predict(None, random_features)
    assert ours.pixel_uncertainty.dtype == torch.float32
    assert not torch.equal(ours.pixel_uncertainty, exact.pixel_uncertainty)
    torch.testing.assert_close(ours.pixel_uncertainty, exact.pixel_uncertainty, rtol=0.1, atol=0.01)
    half.save(tmp_path / "again")  # weights stay float32, whatever the dtype of prediction
    for name in ("labeler.json", "labeler.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_different_features_are_refused(labeler, random_features):
    fewer = FeatureMaps({k: random_features[k] for k in ("a", "b")})
    with pytest.raises(ValueError, match=r"c 2x4x6, d 4x16x24, found a 3x4x6, b 5x8x12$"):
        labeler.predict(None, fewer)


def test_round_trip(labeler, random_features, tmp_path):
    labeler.save(tmp_path / "new" / "folder")
    loaded = Labeler.load(tmp_path / "new" / "folder")
    assert replace_sha(loaded.info) == labeler.info
    assert loaded.info.scores == {"miou": 0.5}
    ours, theirs = labeler.predict(None, random_features), loaded.predict(None, random_features)
    assert torch.equal(ours.mask, theirs.mask)
    assert torch.equal(ours.pixel_uncertainty, theirs.pixel_uncertainty)
    names = {p.name for p in (tmp_path / "new" / "folder").iterdir()}
    assert names == {"labeler.json", "labeler.safetensors"}


def replace_sha(info: LabelerInfo) -> LabelerInfo:
    return info.model_copy(update={"weights_sha256": ""})


def test_saving_twice_gives_the_same_bytes(labeler, tmp_path):
    labeler.save(tmp_path / "a")
    Labeler.load(tmp_path / "a").save(tmp_path / "b")
    for name in ("labeler.json", "labeler.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_failed_save_leaves_nothing(labeler, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        labeler.save(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["labeler.json", "labeler.safetensors"])
def test_missing_file(labeler, tmp_path, name):
    labeler.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing; make one with"):
        Labeler.load(tmp_path)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no labeler in .*nowhere"):
        Labeler.load(tmp_path / "nowhere")


def test_damaged_weights(labeler, tmp_path):
    labeler.save(tmp_path)
    weights = tmp_path / "labeler.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ValueError, match="damaged or does not belong"):
        Labeler.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:50], "labeler.json is damaged"),
        (lambda text: "[]", "labeler.json is damaged"),
        (lambda text: edited(text, classes="x"), "is damaged .'classes'"),
        (lambda text: "\xff", "labeler.json is damaged"),
        (lambda text: edited(text, format_version=99), "format version 99, expected 2 or 3"),
        (
            lambda text: edited(text, format_version=1, config={"lr": 0.001}),
            "format version 1, exp",
        ),
    ],
)
def test_damaged_description(labeler, tmp_path, change, message):
    labeler.save(tmp_path)
    path = tmp_path / "labeler.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message) as caught:
        Labeler.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: edited(text, classes=["a", "b"]),
        lambda text: edited(text, features=json.loads(text)["features"][:1]),
        lambda text: edited(text, config={**json.loads(text)["config"], "members": 2}),
        lambda text: edited(text, config={**json.loads(text)["config"], "hidden": [6]}),
    ],
)
def test_description_of_different_weights(labeler, tmp_path, change):
    labeler.save(tmp_path)
    path = tmp_path / "labeler.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=r"does not describe labeler\.safetensors") as caught:
        Labeler.load(tmp_path)
    assert "\n" not in str(caught.value)


def edited(text: str, **fields) -> str:
    return json.dumps({**json.loads(text), **fields})


def test_check_accepts_the_generator_used_in_training(labeler, random_features):
    labeler.check(StandIn("1" * 64, random_features.spec))


def test_check_refuses_a_different_generator(labeler, random_features):
    with pytest.raises(ValueError, match=r"1{12} \(weights here\), found generator 2{12}: use"):
        labeler.check(StandIn("2" * 64, random_features.spec))


def test_check_refuses_a_different_noise(labeler, random_features):
    labeler.check(StandIn("1" * 64, random_features.spec, {"features.noise": "shared"}))
    message = r"noise shared, but the generator gives .*noise fresh: set generator.features.noise,"
    with pytest.raises(ValueError, match=message):
        labeler.check(StandIn("1" * 64, random_features.spec, {"features.noise": "fresh"}))


def test_check_refuses_a_different_class(labeler, random_features):
    noted = labeler.info.generator.model_copy(update={"config": {"class_id": 0}})
    trained = replace(labeler, info=labeler.info.model_copy(update={"generator": noted}))
    trained.check(StandIn("1" * 64, random_features.spec, {"class_id": 0}))
    with pytest.raises(ValueError, match=r"class_id 0, .* gives class_id 4: set gen.*class_id"):
        trained.check(StandIn("1" * 64, random_features.spec, {"class_id": 4}))
    # What an older version did not record is not compared.
    labeler.check(StandIn("1" * 64, random_features.spec, {"class_id": 4}))


def test_check_refuses_different_blocks(labeler, random_features):
    changed = (replace(random_features.spec[0], channels=9), *random_features.spec[1:])
    with pytest.raises(ValueError, match=r"reads feature maps a 3x4x6, .* gives a 9x4x6, "):
        labeler.check(StandIn("1" * 64, changed))


def test_probabilities_are_the_members_mean(labeler, random_features):
    size = (10, 14)
    prediction = labeler.predict(None, random_features, size, probabilities=True)
    found = prediction.probabilities
    assert found.shape == (2, len(labeler.classes), *size)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(1), torch.ones(2, *size))
    # With soft votes, the most probable class wins.
    assert torch.equal(
        found.argmax(1).byte(), labeler.predict(None, random_features, size, vote="soft").mask
    )
    assert labeler.predict(None, random_features, size).probabilities is None
