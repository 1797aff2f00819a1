"""Seeds and feature maps."""

import pytest
import torch

from generators.base import (
    FeatureMaps,
    FeatureMapSpec,
    batches,
    check_batch,
    sample_generators,
    sample_seed,
)


def test_seed_depends_on_run_index_and_stream_alone() -> None:
    seeds = {sample_seed(r, i, s) for r in range(5) for i in range(200) for s in range(2)}
    assert len(seeds) == 5 * 200 * 2
    assert sample_seed(3, 7) == sample_seed(3, 7)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_one_random_stream_per_sample() -> None:
    together = [torch.randn(3, generator=g) for g in sample_generators(0, [4, 9])]
    alone = torch.randn(3, generator=sample_generators(0, [9])[0])
    assert torch.equal(together[1], alone)


def test_batches_keep_the_order_and_only_the_last_is_small() -> None:
    assert list(batches(range(3, 10), 3)) == [range(3, 6), range(6, 9), range(9, 10)]
    assert list(batches([5, 7], 2)) == [[5, 7]]
    assert list(batches([], 2)) == []


@pytest.mark.parametrize("found", [0, 5])
def test_a_batch_has_a_largest_and_a_smallest_size(found: int) -> None:
    check_batch(4, 4)
    with pytest.raises(ValueError, match=rf"found a batch of {found} images, expected 1 to 4 "):
        check_batch(found, 4)


def test_feature_maps_keep_order_and_shapes() -> None:
    maps = FeatureMaps({"b": torch.zeros(2, 3, 4, 5), "a": torch.ones(2, 1, 8, 8)})
    assert maps.spec == (FeatureMapSpec("b", 3, 4, 5), FeatureMapSpec("a", 1, 8, 8))
    assert maps.batch_size == 2
    assert maps.select(slice(1, 2)).batch_size == 1
    assert FeatureMaps.concat([maps, maps]).batch_size == 4
    assert maps.to(torch.float16)["a"].dtype is torch.float16


def test_feature_maps_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        FeatureMaps({"a": torch.zeros(2, 1, 1, 1), "b": torch.zeros(3, 1, 1, 1)})
