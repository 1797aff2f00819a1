"""The domain gap of synthetic to real images: colour statistics and a Fréchet distance.

Every image of a generator can look right while the set lacks variety, for instance when all samples
share one background. A segmenter trained on them then fails on real images although the masks are
good. Single images do not show this; statistics of the set do.

The Fréchet distance (Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule ...") is
taken in the caller's feature space, usually the generator's own pooled activations, so nothing is
downloaded. Distances are comparable only within one feature space and one sample size.

The kernel distance (KID; Bińkowski et al. 2018, "Demystifying MMD GANs") is taken in the same
space. It is unbiased: two samples of one distribution are 0 apart on average, however few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from rich.table import Table

Array = np.ndarray | torch.Tensor

CHANNELS = ("red", "green", "blue")
MAX_RATIO = 1.25  # a spread that differs by more is reported ...
MAX_SHIFT = 0.25  # ... and so is a mean that moved by more than this share of the real pixel std
MAX_FRECHET_RATIO = 2.0  # distance over noise floor
MIN_SIGMA = 3.5  # standard errors; smaller differences may be chance and are not reported
REPEATS = 4  # random splits that the Fréchet distance is averaged over
MAX_SPLIT = 1000  # images per side of a split: more would only take longer


@dataclass(frozen=True)
class ColourStats:
    """Statistics of one set of N images; each tuple is (red, green, blue) in levels 0-255."""

    n: int
    mean: tuple[float, ...]
    std: tuple[float, ...]  # over all pixels of all images
    between: tuple[float, ...]  # std over images of the image mean: low if colours collapsed


@dataclass(frozen=True)
class Frechet:
    """Fréchet distance of synthetic to real features, and of real to real ones.

    Both are taken between two sets of `n` images, so both have the same bias: for small n, two
    samples of the *same* distribution are far from 0. Only the ratio is meaningful.
    """

    distance: float
    noise_floor: float  # between two random halves of the real images
    n: int  # images per side
    dimensions: int

    @property
    def ratio(self) -> float:
        """Distance over noise floor: about 1 if as far apart as two sets of real images."""
        return _ratio(self.distance, self.noise_floor)


@dataclass(frozen=True)
class Kernel:
    """Kernel distance of synthetic to real features, in units of the real spread.

    `noise_floor` is that between random halves of the real images, about 0; `spread` is the
    standard deviation over such halves, which is what chance alone moves the distance by.
    """

    distance: float
    noise_floor: float
    spread: float
    n: int  # images per side


@dataclass(frozen=True)
class Fidelity:
    """How synthetic images differ from real ones; `verdict` holds a line per difference."""

    synthetic: ColourStats
    real: ColourStats
    frechet: Frechet | None
    verdict: tuple[str, ...]
    agrees: bool  # no difference was found
    kernel: Kernel | None = None

    def to_dict(self) -> dict:
        """A dictionary for JSON with the same names and units."""
        result = asdict(self)
        if self.frechet is not None:
            result["frechet"]["ratio"] = self.frechet.ratio
        return result


def compare(
    synthetic: Array,
    real: Array,
    features: tuple[Array, Array] | None = None,
    *,
    seed: int = 0,
) -> Fidelity:
    """Compare two sets of images uint8 `[N, 3, H, W]` (N and the size may differ).

    `features` are vectors `[N, D]` of the (synthetic, real) images, see `pool`; with them the
    Fréchet and the kernel distance are computed, on random halves drawn by `seed`. Raises
    ValueError for fewer than 2 images per side, or fewer than 4 real ones with features.
    """
    ours, theirs = colour_stats(synthetic, "synthetic"), colour_stats(real, "real")
    frechet, kernel = (None, None) if features is None else _distances(*features, seed=seed)
    complaints = _complaints(ours, theirs, frechet)
    fine = "no domain gap found: all differences are small, or may be chance with so few images"
    return Fidelity(ours, theirs, frechet, tuple(complaints or [fine]), not complaints, kernel)


def colour_stats(images: Array, name: str = "images") -> ColourStats:
    """Channel statistics of images uint8 `[N, 3, H, W]`; `name` is for the error message."""
    if images.ndim != 4 or images.shape[1] != 3:
        found = list(images.shape)
        raise ValueError(f"{name} images: found shape {found}, expected [N, 3, H, W]")
    if len(images) < 2:
        raise ValueError(f"found {len(images)} {name} image(s), expected at least 2: add images")
    # One image at a time: a float64 copy of the set would take eight times its memory.
    pixels = (np.asarray(image, dtype=np.float64) for image in images)
    moments = np.array([(p.mean(axis=(1, 2)), (p * p).mean(axis=(1, 2))) for p in pixels])
    mean, square = moments.mean(axis=0)
    return ColourStats(
        n=len(images),
        mean=tuple(mean.tolist()),
        std=tuple(np.sqrt(np.maximum(square - mean**2, 0)).tolist()),
        between=tuple(moments[:, 0].std(axis=0, ddof=1).tolist()),
    )


def frechet_distance(a: Array, b: Array) -> float:
    """||m_a - m_b||² + Tr(C_a + C_b - 2 (C_a C_b)^½) of feature vectors `[N, D]` and `[M, D]`.

    No matrix root is needed. With C_a = AᵀA and C_b = BᵀB, where A and B are the centred vectors
    over √(N-1), the eigenvalues of C_a C_b are the squared singular values of A Bᵀ, so the trace of
    the root is the sum of the singular values. This also holds for N < D, when the covariances are
    singular.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    root_a, root_b = _covariance_root(a), _covariance_root(b)
    shift = a.mean(axis=0) - b.mean(axis=0)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    distance = shift @ shift + (root_a**2).sum() + (root_b**2).sum() - 2 * cross
    return max(float(distance), 0.0)  # rounding leaves -1e-15 for equal sets


def kernel_distance(a: Array, b: Array) -> float:
    """Unbiased estimate of MMD² with the kernel (xᵀy/D + 1)³, of vectors `[N, D]` and `[M, D]`.

    It may be negative: it scatters around 0 for two samples of one distribution.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)

    def within(x: np.ndarray) -> float:  # without pairs of an image with itself, which add a bias
        k, n = kernel(x, x), len(x)
        return float((k.sum() - np.trace(k)) / (n * (n - 1)))

    return within(a) + within(b) - 2 * float(kernel(a, b).mean())


def _covariance_root(vectors: np.ndarray) -> np.ndarray:
    """A matrix A with at most D rows such that AᵀA is the covariance of `[N, D]`."""
    root = (vectors - vectors.mean(axis=0)) / np.sqrt(len(vectors) - 1)
    return np.asarray(np.linalg.qr(root, mode="r")) if len(root) > root.shape[1] else root


def _distances(synthetic: Array, real: Array, seed: int) -> tuple[Frechet, Kernel]:
    """Distances of synthetic and of real features to the same random halves of the real ones."""
    synthetic = np.asarray(synthetic, dtype=np.float64)
    real = np.asarray(real, dtype=np.float64)
    if synthetic.ndim != 2 or real.ndim != 2 or synthetic.shape[1] != real.shape[1]:
        shapes = f"{list(synthetic.shape)} and {list(real.shape)}"
        raise ValueError(f"features: found shapes {shapes}, expected [N, D] and [M, D]")
    n = min(len(real) // 2, len(synthetic), MAX_SPLIT)
    if n < 2:
        raise ValueError(
            f"found features of {len(synthetic)} synthetic and {len(real)} real image(s), "
            "expected at least 2 and 4: add images"
        )
    # In units of the real spread, no channel dominates; a channel that is constant on the real
    # images gets the average spread.
    spread = real.std(axis=0)
    unit = np.where(spread > 1e-9 * spread.max(), spread, spread.mean() or 1.0)
    centre = real.mean(axis=0)
    synthetic, real = (synthetic - centre) / unit, (real - centre) / unit

    random = np.random.default_rng(seed)
    frechet: list[tuple[float, float]] = []  # of synthetic to real, of real to real
    kernel: list[tuple[float, float]] = []
    for _ in range(REPEATS):
        shuffled = real[random.permutation(len(real))[: 2 * n]]
        subset = synthetic[random.permutation(len(synthetic))[:n]]
        for found, distance in ((frechet, frechet_distance), (kernel, kernel_distance)):
            found.append((distance(subset, shuffled[:n]), distance(shuffled[n:], shuffled[:n])))
    distance, floor = np.mean(frechet, axis=0).tolist()
    kernel_mean, kernel_floor = np.mean(kernel, axis=0).tolist()
    spread = float(np.std([b for _, b in kernel], ddof=1))
    return (
        Frechet(distance, floor, n, real.shape[1]),
        Kernel(kernel_mean, kernel_floor, spread, n),
    )


def _complaints(ours: ColourStats, theirs: ColourStats, frechet: Frechet | None) -> list[str]:
    """A line for every difference beyond the limits and beyond chance."""
    lines = [
        _spread("between images, colour", ours.between, theirs.between, ours, theirs),
        _spread("over all pixels, colour", ours.std, theirs.std, ours, theirs),
        _shift(ours, theirs),
    ]
    if frechet is not None and frechet.ratio > MAX_FRECHET_RATIO:
        lines.append(
            f"features are {frechet.ratio:.1f}x as far from the real images as these are from "
            "each other"
        )
    return [line for line in lines if line]


def _spread(
    what: str, a: Sequence[float], b: Sequence[float], ours: ColourStats, theirs: ColourStats
) -> str:
    """'... varies 2.3x less than in the real images (blue)', for the channels that differ."""
    # The standard error of the logarithm of a standard deviation over n images is √(1/2(n-1)).
    error = np.sqrt(0.5 / (ours.n - 1) + 0.5 / (theirs.n - 1))
    limit = max(MAX_RATIO, np.exp(MIN_SIGMA * error))
    phrases = []
    for word, ratios in (
        ("less", [_ratio(real, synthetic) for synthetic, real in zip(a, b, strict=True)]),
        ("more", [_ratio(synthetic, real) for synthetic, real in zip(a, b, strict=True)]),
    ):
        off = [name for name, ratio in zip(CHANNELS, ratios, strict=True) if ratio > limit]
        if off:
            times = f"up to {max(ratios):.1f}x" if len(off) > 1 else f"{max(ratios):.1f}x"
            phrases.append(f"{times} {word} than in the real images ({', '.join(off)})")
    return f"{what} varies " + " and ".join(phrases) if phrases else ""


def _shift(ours: ColourStats, theirs: ColourStats) -> str:
    """'the mean colour is off by -12 (red)' in levels, for the channels that differ."""
    off = []
    for i, name in enumerate(CHANNELS):
        difference = ours.mean[i] - theirs.mean[i]
        error = np.hypot(ours.between[i] / ours.n**0.5, theirs.between[i] / theirs.n**0.5)
        if abs(difference) > max(MAX_SHIFT * theirs.std[i], MIN_SIGMA * error):
            off.append(f"{difference:+.0f} ({name})")
    return f"the mean colour is off by {', '.join(off)} of 255 levels" if off else ""


def _ratio(a: float, b: float) -> float:
    """a / b, where 0 / 0 is 1: both are constant."""
    tiny = 1e-9
    return (a + tiny) / (b + tiny)


def render_table(fidelity: Fidelity) -> Table:
    """A table for the terminal: a row per statistic and channel, the verdict below."""
    ours, theirs, frechet = fidelity.synthetic, fidelity.real, fidelity.frechet
    table = Table(
        title="Synthetic against real images",
        caption="\n".join(fidelity.verdict),
        caption_style="green" if fidelity.agrees else "yellow",
    )
    for heading in ("", "channel"):
        table.add_column(heading)
    for heading in (f"synthetic ({ours.n})", f"real ({theirs.n})", "ratio"):
        table.add_column(heading, justify="right")
    for label, key in (
        ("mean, 0-255", "mean"),
        ("std over pixels", "std"),
        ("std between images", "between"),
    ):
        for i, name in enumerate(CHANNELS):
            a, b = getattr(ours, key)[i], getattr(theirs, key)[i]
            end = i == len(CHANNELS) - 1
            cells = (f"{a:.1f}", f"{b:.1f}", f"{_ratio(a, b):.2f}")
            table.add_row("" if i else label, name, *cells, end_section=end)
    if frechet is not None:
        label = f"Fréchet distance, {frechet.n} to {frechet.n}"
        values = (f"{frechet.distance:.3g}", f"{frechet.noise_floor:.3g}", f"{frechet.ratio:.2f}")
        table.add_row(label, f"{frechet.dimensions} features", *values)
    if (kernel := fidelity.kernel) is not None:
        floor = f"{1000 * kernel.noise_floor:.3g} ± {1000 * kernel.spread:.3g}"
        values = (f"{1000 * kernel.distance:.3g}", floor, "")
        table.add_row("kernel distance (KID) x 1000", "", *values)
    return table
