"""The ensemble against torch's own layers; test_inference tests whole images."""

from __future__ import annotations

import torch

from labelers.ensemble.classifiers import Ensemble, group_by_size


def test_members_train_like_separate_networks(random_features):
    """Batch statistics, running statistics and outputs are those of torch's own layers."""
    rng = torch.Generator().manual_seed(3)
    ensemble = Ensemble(random_features.spec, 5, (7, 6), members=3, rng=rng)
    for tensor in ensemble.state_dict().values():  # the normalisation is not the identity
        tensor.copy_(torch.rand(tensor.shape, generator=rng) + 0.1 * tensor)
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
