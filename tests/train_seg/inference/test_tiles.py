"""Tiles: every pixel is covered, blending is exact for a local function, memory is bounded."""

from __future__ import annotations

import pytest
import torch

from train_seg.inference.tiles import Tiling, predict_tiled


def by_colour(tiles: torch.Tensor) -> torch.Tensor:
    """A function of single pixels: tiling cannot change its result."""
    return tiles.float()


def random_image(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("size", [(16, 16), (50, 41), (7, 90), (33, 9)])
def test_equals_the_whole_image_for_a_function_of_the_pixel(size, overlap):
    image = random_image(*size)
    mask = predict_tiled(by_colour, image, Tiling((16, 12), overlap), batch_size=3)
    assert mask.dtype == torch.uint8
    assert torch.equal(mask, image.argmax(0).to(torch.uint8))


def test_tiles_have_the_requested_size_and_batches_are_limited():
    seen = []

    def logits(tiles: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(tiles.shape))
        return tiles.float()

    predict_tiled(logits, random_image(10, 100), Tiling((16, 16), 0.5), batch_size=4)
    assert {shape[1:] for shape in seen} == {(3, 16, 16)}
    assert max(shape[0] for shape in seen) == 4


def test_the_centre_of_a_tile_outweighs_the_border_of_its_neighbour():
    """The function fails at the borders of its tiles, as networks do; the seams vanish."""

    def logits(tiles: torch.Tensor) -> torch.Tensor:
        result = torch.zeros(len(tiles), 2, *tiles.shape[2:])
        result[:, 0] = 1
        result[:, 1, :2] = result[:, 1, -2:] = 2  # wrong in two rows at each end
        return result

    seams = predict_tiled(logits, random_image(64, 16), Tiling((16, 16), 0))
    blended = predict_tiled(logits, random_image(64, 16), Tiling((16, 16), 0.5))
    assert seams[2:-2].any()
    assert not blended[2:-2].any()


def test_tiles_have_the_proportions_of_the_training_images():
    assert Tiling.of_height(128, (64, 96), 0.25) == Tiling((128, 192), 0.25)


def test_invalid_tilings_are_refused():
    with pytest.raises(ValueError, match=r"overlap from 0 to 0.9, found 1"):
        Tiling((16, 16), 1)
    with pytest.raises(ValueError, match=r"at least 8 pixels per side, found 16x4"):
        Tiling.of_height(16, (64, 16), 0)
