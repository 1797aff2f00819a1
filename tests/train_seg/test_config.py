"""The settings of a segmenter."""

import pytest
from pydantic import ValidationError

from train_seg.config import SegmenterConfig


def test_one_number_is_the_size_of_a_square() -> None:
    assert SegmenterConfig(image_size=64).image_size == (64, 64)  # type: ignore[arg-type]
    assert SegmenterConfig(image_size=(48, 64)).image_size == (48, 64)
    assert SegmenterConfig().image_size is None
    with pytest.raises(ValidationError, match="expected height and width >= 8, found"):
        SegmenterConfig(image_size=4)  # type: ignore[arg-type]
