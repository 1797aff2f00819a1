"""The section that compares synthetic with real images, from fidelity.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from factory.reports.fidelity import CHANNELS
from factory.reports.page import Section, note, table

TITLE = "Synthetic against real"
LEAD = "Whether the set as a whole looks like real images: colours, variety, features."


def section(fidelity: Mapping[str, Any] | None) -> Section:
    """Colours, Fréchet and kernel distance with their noise floors, and the verdict."""
    if fidelity is None:
        hint = "To compare with real images, add `--real DIR`: a folder of photographs."
        return Section(TITLE, LEAD, [note(hint)])
    ours, theirs = fidelity["synthetic"], fidelity["real"]
    rows = [
        [f"{label}, {channel}", f"{ours[key][i]:.1f}", f"{theirs[key][i]:.1f}"]
        for label, key in (
            ("mean", "mean"),
            ("deviation over pixels", "std"),
            ("deviation between images", "between"),
        )
        for i, channel in enumerate(CHANNELS)
    ]
    header = ["levels 0-255", f"synthetic ({ours['n']})", f"real ({theirs['n']})"]
    verdict = [note(line, warning=not fidelity["agrees"]) for line in fidelity["verdict"]]
    return Section(TITLE, LEAD, [*verdict, *_distances(fidelity), table(header, rows)])


def _distances(fidelity: Mapping[str, Any]) -> list[Any]:
    frechet, kernel = fidelity.get("frechet"), fidelity.get("kernel")
    if frechet is None:
        return [note("No distances of features: these need a diffusion model (`--generator`).")]
    rows = [
        [
            "Fréchet distance",
            f"{frechet['distance']:.3g}",
            f"{frechet['noise_floor']:.3g}",
            f"{frechet['distance'] / max(frechet['noise_floor'], 1e-9):.2f} times the floor",
        ]
    ]
    if kernel is not None:
        spread = max(kernel["spread"], 1e-9)
        beyond = (kernel["distance"] - kernel["noise_floor"]) / spread
        floor = f"{1000 * kernel['noise_floor']:.3g} ± {1000 * kernel['spread']:.3g}"
        rows.append(
            [
                "kernel distance (KID) × 1000",
                f"{1000 * kernel['distance']:.3g}",
                floor,
                f"{beyond:.1f} deviations above the floor",
            ]
        )
    text = (
        f"Of {frechet['n']} to {frechet['n']} images, in the {frechet['dimensions']} features"
        " of the generator, averaged over space. The noise floor is between halves of the real"
        " images."
        " The Fréchet distance grows as images get fewer, so only its ratio to that counts;"
        " the kernel distance is unbiased: about 0 if both are of one distribution."
    )
    header = ["", "synthetic to real", "real to real (noise floor)", ""]
    return [table(header, rows), note(text)]
