"""Labels of whole images against the plain way: upsample, concatenate, one member after another."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from generators.base import FeatureMaps
from labelers.config import LabelerConfig
from labelers.ensemble import inference
from labelers.ensemble.classifiers import Ensemble
from labelers.ensemble.inference import FoldedEnsemble
from labelers.labeler import GeneratorInfo, Labeler, LabelerInfo, Prediction

SIZE = (16, 24)
TRAINED_SIZE = (96, 128)
MAPS = {
    "several sizes": {"a": (3, 4, 6), "b": (5, 8, 12), "c": (2, 4, 6), "d": (4, 16, 24)},
    "one map": {"a": (6, 8, 8)},
    "one channel": {"a": (1, 5, 3), "b": (1, 2, 7)},
    "size 1": {"a": (4, 1, 1), "b": (3, 1, 9), "c": (5, 8, 1)},
    "odd sizes": {"a": (4, 3, 5), "b": (3, 7, 11), "c": (2, 17, 13)},
    "larger than the image": {"a": (4, 33, 40), "b": (3, 64, 48)},
}


def random_maps(shapes: dict[str, tuple[int, int, int]], images: int = 1) -> FeatureMaps:
    rng = torch.Generator().manual_seed(1)
    return FeatureMaps({k: torch.randn(images, *s, generator=rng) for k, s in shapes.items()})


def trained_like(
    features: FeatureMaps, hidden: tuple[int, ...] = (7, 6), members: int = 3
) -> Ensemble:
    """An ensemble whose normalisation is not the identity, in eval mode."""
    rng = torch.Generator().manual_seed(3)
    ensemble = Ensemble(features.spec, 5, hidden, members, rng)
    for name, tensor in ensemble.state_dict().items():
        tensor.copy_(torch.randn(tensor.shape, generator=rng))
        if name.endswith("running_var"):
            tensor.abs_().add_(0.1)
    return ensemble.eval()


def as_labeler(ensemble: Ensemble, size=SIZE, dtype: torch.dtype = torch.float32) -> Labeler:
    classes = ensemble.linears[-1].weight.shape[1]
    info = LabelerInfo(
        classes=[f"class_{i}" for i in range(classes)],
        features=ensemble.spec,
        generator=GeneratorInfo(digest=""),
        image_size=size,
        data_digest="",
        config=LabelerConfig(),
    )
    return Labeler(ensemble, info, dtype)


def upsampled(features: FeatureMaps, ensemble: Ensemble, size=SIZE) -> torch.Tensor:
    """Every pixel of the batch as a row, `[N·H·W, ΣC]`, in the ensemble's order of channels."""
    names = [m.name for maps in ensemble.groups.values() for m in maps]
    maps = [F.interpolate(features[n].float(), size, mode="bilinear") for n in names]
    return torch.cat(maps, 1).permute(0, 2, 3, 1).flatten(0, 2)


def plain_logits(features: FeatureMaps, ensemble: Ensemble, size=SIZE) -> torch.Tensor:
    """Logits `[M, K, N·H·W]`."""
    with torch.no_grad():
        return ensemble(upsampled(features, ensemble, size).expand(ensemble.members, -1, -1))


def plain_prediction(features, ensemble, size=SIZE, vote="majority", uncertainty="js"):
    """Mask and uncertainty `[N, H, W]`, members on the first axis until they are reduced."""
    logits = plain_logits(features, ensemble, size)
    p = torch.softmax(logits, 1)
    if vote == "majority":
        mask = logits.argmax(1).mode(0).values  # on a CPU the smallest id of those that tie
    elif vote == "soft":
        mask = p.mean(0).argmax(0)
    else:
        mask = torch.log_softmax(logits, 1).mean(0).argmax(0)
    unsure = torch.special.entr(p.mean(0)).sum(0)
    if uncertainty == "js":
        unsure = unsure - torch.special.entr(p).sum(1).mean(0)
    return mask.view(-1, *size), unsure.view(-1, *size)


def assert_same(ours: Prediction, plain: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert torch.equal(ours.mask.long(), plain[0])
    torch.testing.assert_close(ours.pixel_uncertainty, plain[1], rtol=0, atol=1e-5)


def all_logits(folded: FoldedEnsemble, features: FeatureMaps, size=SIZE) -> torch.Tensor:
    return torch.cat([logits for _, _, logits in folded.logits(features, size)], 2)


def test_golden_logits(golden, golden_features, golden_ensemble):
    ours = all_logits(FoldedEnsemble(golden_ensemble), golden_features, (32, 32))
    theirs = golden["logits"].transpose(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)  # logits reach 150


def test_golden_logits_whatever_the_order_of_maps(golden, golden_features, golden_states):
    """Input channels follow the spec, even if maps of one size are not adjacent in it."""
    split = {
        "head": golden_features["map0"][:, :5],
        "other": golden_features["map1"],
        "tail": golden_features["map0"][:, 5:],
        "last": golden_features["map2"],
    }
    order = [*range(5), *range(12, 20), *range(5, 12), *range(20, 26)]
    states = [{**s, "layers.0.weight": s["layers.0.weight"][:, order]} for s in golden_states]
    features = FeatureMaps(split)
    ensemble = Ensemble.from_reference(features.spec, states)
    theirs = golden["logits"].transpose(1, 2)
    shuffled = FeatureMaps(dict(reversed(split.items())))
    for given in (features, shuffled):
        ours = all_logits(FoldedEnsemble(ensemble), given, (32, 32))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("size", [SIZE, (17, 23), (1, 1), (5, 40)])
def test_inference_equals_the_plain_way(name, size):
    features = random_maps(MAPS[name])
    ensemble = trained_like(features)
    ours = as_labeler(ensemble, size).predict(None, features)
    assert_same(ours, plain_prediction(features, ensemble, size))


@pytest.mark.parametrize("vote", ["majority", "soft", "log_soft"])
@pytest.mark.parametrize("uncertainty", ["js", "entropy"])
def test_every_vote_with_every_uncertainty(vote, uncertainty):
    features = random_maps(MAPS["several sizes"], images=3)
    ensemble = trained_like(features, members=4)
    ours = as_labeler(ensemble).predict(None, features, vote=vote, uncertainty=uncertainty)
    assert_same(ours, plain_prediction(features, ensemble, SIZE, vote, uncertainty))


def test_votes_and_uncertainties_are_alternatives():
    """No two of them are the same under different names."""
    features = random_maps(MAPS["several sizes"], images=3)
    labeler = as_labeler(trained_like(features, members=4))
    masks = [labeler.predict(None, features, vote=v).mask for v in ("majority", "soft", "log_soft")]
    assert all(not torch.equal(masks[i], masks[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    js, entropy = (
        labeler.predict(None, features, uncertainty=u).pixel_uncertainty for u in ("js", "entropy")
    )
    assert (entropy - js).min() > 0


@pytest.mark.parametrize("hidden", [(9,), (6, 7), (5, 8, 4)])
@pytest.mark.parametrize("members", [1, 4])
def test_any_depth_width_and_number_of_members(hidden, members):
    features = random_maps(MAPS["odd sizes"])
    ensemble = trained_like(features, hidden, members)
    ours = all_logits(FoldedEnsemble(ensemble), features)
    torch.testing.assert_close(ours, plain_logits(features, ensemble), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tile_px", [1, 7, 100, 383])
def test_tiles_that_do_not_divide_the_image(tile_px, monkeypatch):
    features = random_maps(MAPS["several sizes"], images=2)
    ensemble = trained_like(features)
    monkeypatch.setitem(inference.TILE_BYTES, "cpu", tile_px * 3 * 7 * 4)
    tiles = [tile for run, tile, _ in FoldedEnsemble(ensemble).logits(features, SIZE) if run.start]
    assert len(tiles) == -(-SIZE[0] * SIZE[1] // tile_px)
    assert_same(as_labeler(ensemble).predict(None, features), plain_prediction(features, ensemble))


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_at_once_equal_one_at_a_time(name, layout):
    """As a GPU takes them; the last run of two has one image."""
    features = random_maps(MAPS[name], images=5)
    features = FeatureMaps({k: t.contiguous(memory_format=layout) for k, t in features.items()})
    folded = FoldedEnsemble(trained_like(features))
    runs = list(folded.logits(features, SIZE, at_once=2))
    assert [(run.start, run.stop) for run, _, _ in runs] == [(0, 2), (2, 4), (4, 5)]
    together = torch.cat([logits for _, _, logits in runs], 2)
    torch.testing.assert_close(together, all_logits(folded, features), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("vote", ["majority", "soft"])
def test_predictions_of_images_at_once(vote, monkeypatch):
    """Where the pixels of several images come together, each is written to its place."""
    features = random_maps(MAPS["several sizes"], images=5)
    labeler = as_labeler(trained_like(features))
    expected = labeler.predict(None, features, vote=vote, probabilities=True)
    logits = FoldedEnsemble.logits
    monkeypatch.setattr(FoldedEnsemble, "logits", lambda self, *a: logits(self, *a, at_once=2))
    found = labeler.predict(None, features, vote=vote, probabilities=True)
    assert torch.equal(found.mask, expected.mask)
    torch.testing.assert_close(found.probabilities, expected.probabilities)
    torch.testing.assert_close(
        found.pixel_uncertainty, expected.pixel_uncertainty, rtol=1e-4, atol=1e-5
    )


def test_an_image_does_not_depend_on_its_batch():
    features = random_maps(MAPS["several sizes"], images=3)
    labeler = as_labeler(trained_like(features))
    whole = labeler.predict(None, features)
    for i in range(3):
        alone = labeler.predict(None, features.select(slice(i, i + 1)))
        assert torch.equal(alone.mask[0], whole.mask[i])
        assert torch.equal(alone.pixel_uncertainty[0], whole.pixel_uncertainty[i])


def test_no_images():
    features = random_maps(MAPS["one map"])
    labeler = as_labeler(trained_like(features))
    prediction = labeler.predict(None, features.select(slice(0, 0)))
    assert prediction.mask.shape == prediction.pixel_uncertainty.shape == (0, *SIZE)
    assert prediction.uncertainty.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_of_half_precision_in_either_layout(dtype):
    features = random_maps(MAPS["several sizes"], images=2).to(dtype)
    last = FeatureMaps(
        {k: t.contiguous(memory_format=torch.channels_last) for k, t in features.items()}
    )
    ensemble = trained_like(features)
    expected = plain_prediction(features, ensemble)
    assert_same(as_labeler(ensemble).predict(None, features), expected)
    assert_same(as_labeler(ensemble).predict(None, last), expected)


def test_prediction_ignores_the_mode_of_the_module():
    features = random_maps(MAPS["several sizes"])
    ensemble = trained_like(features)
    expected = all_logits(FoldedEnsemble(ensemble), features)
    assert torch.equal(all_logits(FoldedEnsemble(ensemble.train()), features), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_copies(dtype):
    features = random_maps(MAPS["several sizes"])
    ensemble = trained_like(features)
    folded = FoldedEnsemble(ensemble, dtype)
    before = all_logits(folded, features)
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter.zero_()
    assert torch.equal(all_logits(folded, features), before)


@pytest.fixture(scope="module")
def trained() -> tuple[FeatureMaps, Ensemble]:
    """Two images of regions of five classes, and an ensemble trained to distinguish them.

    Each class has its own mean feature in every map; members are unsure at borders only.
    """
    rng = torch.Generator().manual_seed(5)
    rows, columns = (torch.arange(s) for s in TRAINED_SIZE)
    centres = torch.rand(2, 15, 2, generator=rng) * torch.tensor(TRAINED_SIZE)
    distance = (rows[:, None, None] - centres[:, None, None, :, 0]) ** 2
    distance = distance + (columns[:, None] - centres[:, None, None, :, 1]) ** 2
    target = distance.argmin(3) % 5  # [2, H, W]
    maps = {}
    for name, shape in {"a": (24, 6, 8), "b": (16, 12, 16), "c": (8, 24, 32)}.items():
        step = TRAINED_SIZE[0] // shape[1]
        seen = target[:, step // 2 :: step, step // 2 :: step]
        means = torch.randn(5, shape[0], generator=rng)
        maps[name] = means[seen].permute(0, 3, 1, 2) + torch.randn(2, *shape, generator=rng)
    features = FeatureMaps(maps)
    ensemble = Ensemble(features.spec, 5, (32, 16), 10, rng)
    pixels = upsampled(features, ensemble, TRAINED_SIZE)
    optimizer = torch.optim.Adam(ensemble.parameters(), lr=0.01)
    for _ in range(100):
        batch = torch.randint(len(pixels), (10, 256), generator=rng)
        loss = F.cross_entropy(ensemble(pixels[batch]), target.flatten()[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ensemble.eval()
    mask, js = plain_prediction(features, ensemble, TRAINED_SIZE)
    assert (mask == target).float().mean() > 0.95
    assert 0.001 < js.mean() < 0.1
    return features, ensemble


def test_trained_labels_equal_the_plain_way(trained):
    features, ensemble = trained
    ours = as_labeler(ensemble, TRAINED_SIZE).predict(None, features)
    assert_same(ours, plain_prediction(features, ensemble, TRAINED_SIZE))


@pytest.mark.parametrize("size", [TRAINED_SIZE, (91, 133)])
@pytest.mark.parametrize("vote", ["majority", "soft", "log_soft"])
def test_bfloat16_agrees_on_999_labels_of_1000(trained, size, vote):
    features, ensemble = trained
    mask, js = plain_prediction(features, ensemble, size, vote)
    ours = as_labeler(ensemble, size, torch.bfloat16).predict(None, features, vote=vote)
    assert (ours.mask == mask).float().mean() >= 0.999
    assert (ours.pixel_uncertainty - js).abs().mean() < 0.01 * js.mean()
    assert not torch.equal(ours.pixel_uncertainty, js)  # it did compute in bfloat16
