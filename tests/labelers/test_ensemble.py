"""The ensemble against the reference program and against plain upsample-and-concatenate."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from generators.base import FeatureMaps
from labelers.ensemble import Ensemble, group_by_size

SIZE = (16, 24)


def upsampled(features: FeatureMaps, ensemble: Ensemble) -> torch.Tensor:
    """The plain way: every map upsampled, concatenated in the ensemble's order, `[N, C, H, W]`."""
    names = [m.name for maps in ensemble.groups.values() for m in maps]
    return torch.cat(
        [F.interpolate(features[n], SIZE, mode="bilinear", align_corners=False) for n in names], 1
    )


def trained_like(features: FeatureMaps, hidden: tuple[int, ...] = (7, 6)) -> Ensemble:
    """An ensemble whose normalisation is not the identity, in eval mode."""
    rng = torch.Generator().manual_seed(3)
    ensemble = Ensemble(features.spec, 5, hidden, members=3, rng=rng)
    for tensor in ensemble.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape, generator=rng) + 0.1 * tensor)
    return ensemble.eval()


def test_golden_logits(golden, golden_features, golden_ensemble):
    ours = torch.cat(list(golden_ensemble.logits(golden_features, (32, 32))))
    theirs = golden["logits"].transpose(1, 2).reshape(10, 5, 32, 32)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)  # logits reach 150


def test_golden_logits_whatever_the_order_of_maps(golden, golden_features, golden_states):
    """Input channels follow the spec given, even where maps of one size are apart in it."""
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
    first = next(ensemble.logits(features, (32, 32)))
    theirs = golden["logits"][0].T.reshape(1, 5, 32, 32)
    torch.testing.assert_close(first, theirs, rtol=1e-5, atol=1e-4)


def test_projecting_first_equals_upsampling_first(random_features):
    ensemble = trained_like(random_features)
    plain = upsampled(random_features, ensemble)
    pixels = plain.permute(0, 2, 3, 1).flatten(0, 2)
    expected = ensemble(pixels.expand(3, -1, -1))  # [M, K, N·H·W]
    ours = torch.stack(list(ensemble.logits(random_features, SIZE)))
    expected = expected.unflatten(2, (2, *SIZE)).transpose(1, 2)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_any_number_of_hidden_layers(random_features):
    ensemble = trained_like(random_features, (9,))
    pixels = upsampled(random_features, ensemble).permute(0, 2, 3, 1).flatten(0, 2)
    expected = ensemble(pixels.expand(3, -1, -1))[1].unflatten(1, (2, *SIZE)).transpose(0, 1)
    ours = list(ensemble.logits(random_features, SIZE))[1]
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_prediction_ignores_the_mode_of_the_module(random_features):
    ensemble = trained_like(random_features)
    expected = next(ensemble.logits(random_features, SIZE))
    assert torch.equal(next(ensemble.train().logits(random_features, SIZE)), expected)


def test_members_train_like_separate_networks(random_features):
    """Batch statistics, running statistics and outputs are those of torch's own layers."""
    ensemble = trained_like(random_features).train()
    x = torch.randn(3, 11, 14, generator=torch.Generator().manual_seed(5))
    singles = []
    for m in range(3):
        layers = []
        for linear, norm in zip(ensemble.linears, [*ensemble.norms, None], strict=True):
            single = torch.nn.Linear(linear.weight.shape[2], linear.weight.shape[1])
            single.load_state_dict({k: t[m] for k, t in linear.state_dict().items()})
            layers.append(single)
            if norm is not None:
                batch_norm = torch.nn.BatchNorm1d(norm.weight.shape[1])
                state = {k: t[m].clone() for k, t in norm.state_dict().items()}
                batch_norm.load_state_dict(state, strict=False)
                layers += [torch.nn.ReLU(), batch_norm]
        singles.append(torch.nn.Sequential(*layers))
    ours = ensemble(x)
    for m, single in enumerate(singles):
        torch.testing.assert_close(ours[m].T, single(x[m]))
        torch.testing.assert_close(ensemble.norms[0].running_var[m], single[2].running_var)
        torch.testing.assert_close(ensemble.norms[1].running_mean[m], single[5].running_mean)


def test_initial_weights(random_features):
    rng = torch.Generator().manual_seed(0)
    ensemble = Ensemble(random_features.spec, 5, (128, 32), members=10, rng=rng)
    weight = ensemble.linears[0].weight
    assert weight.shape == (10, 128, 14)
    assert abs(weight.std().item() - 0.02) < 1e-3
    assert not torch.equal(weight[0], weight[1])
    assert all(not linear.bias.any() for linear in ensemble.linears)


def test_maps_of_one_size_are_grouped(random_features):
    groups = group_by_size(random_features.spec)
    assert [[m.name for m in maps] for maps in groups.values()] == [["a", "c"], ["b"], ["d"]]
