"""How the quality of a projection is reported."""

from factory.reports.projection import far_below, quality


def test_only_images_far_below_the_rest_are_named() -> None:
    names = [f"image_{i}" for i in range(8)]
    alike = [28.0, 27.5, 28.5, 26.0, 29.0, 28.2, 27.9, 28.1]
    assert far_below(alike) == []
    assert quality(alike, names) == (
        "the generator matches the images with a PSNR of 27.9 dB on average, 26.0 dB at worst"
    )
    odd = [*alike[:3], 17.0, *alike[4:7], 15.25]
    assert far_below(odd) == [7, 3]
    assert "far below the rest: image_7 (15.2 dB), image_3 (17.0 dB): their" in quality(odd, names)
    assert far_below([20.0]) == []


def test_long_lists_are_cut() -> None:
    psnr = [28.0] * 20 + [10.0] * 7
    assert "25 (10.0 dB)" not in quality(psnr, [str(i) for i in range(27)])
    assert "24 (10.0 dB) and 2 more" in quality(psnr, [str(i) for i in range(27)])
