"""The verdict in one sentence, and the commands that make the recommended model."""

from __future__ import annotations

from dataclasses import dataclass

from factory.verdict.decision import Decision
from factory.verdict.rounds import MEMBERS, seed_of
from factory.verdict.settings import CompareConfig, changed_settings
from factory.verdict.statistics import Interval
from train_seg.config import PRESETS

SYNTHETIC = ("synthetic", "synthetic-labels")
POLICIES = ("photographs-per_class", "photographs-none")
# Contender -> what it is the mean of, with the seed of each.
MEANS = {
    "labels-mean": [("unet-strong", 0), ("deeplab-strong", 0)],
    "generator-mean": [("generator-unet-strong", seed_of(member)) for member in range(MEMBERS)],
}


@dataclass(frozen=True)
class Inputs:
    """What the user gave, as in the commands to print; `kind` is the strongest labeler."""

    labeled: str
    images: str | None = None
    generator: str | None = None
    kind: str = "both"


def points(interval: Interval) -> str:
    """`+4.1 ± 1.2`, in mIoU points (0-100)."""
    if interval.cells < 2:
        return f"{100 * interval.mean:+.1f}"
    return f"{100 * interval.mean:+.1f} ± {100 * interval.half_width:.1f}"


def sentence(decision: Decision, images: int) -> str:
    """The verdict on `images` annotated images."""
    if not decision.is_learned and not decision.is_hopeless:
        return (
            f"With your {images} images: no verdict yet, too few splits were scored: "
            "rerun with a longer --budget."
        )
    if decision.is_hopeless:
        assert decision.over_blind is not None
        return (
            f"Nothing can be learned from your {images} images: the best model is not "
            f"significantly better than {decision.blind} ({points(decision.over_blind)} mIoU). "
            "Check that every mask belongs to its image, or annotate more."
        )
    start, baseline = f"With your {images} images: ", decision.baseline
    if decision.winner != baseline:
        lead = points(decision.differences[decision.winner])
        said = f"{start}{decision.winner}, {lead} mIoU over labels alone ({baseline})"
        return f"{said}{_about_synthetic(decision)}."
    rivals = {n: d for n, d in decision.differences.items() if d.cells > 0}
    if not rivals:
        return f"{start}labels alone ({baseline}); nothing else was compared."
    closest = max(rivals, key=lambda name: rivals[name].mean)
    return (
        f"{start}labels alone ({baseline}); nothing is significantly better "
        f"(closest: {closest}, {points(rivals[closest])} mIoU)."
    )


def _about_synthetic(decision: Decision) -> str:
    found = [decision.differences[n] for n in SYNTHETIC if n in decision.differences]
    if not found or decision.winner in SYNTHETIC or any(d.is_positive for d in found):
        return ""
    if all(d.is_negative for d in found):
        return "; synthetic images are worse than labels alone"
    return "; synthetic images add nothing significant"


def commands(name: str, inputs: Inputs, config: CompareConfig, square: bool) -> list[str]:
    """The commands that train the contender `name` on all labels, in order.

    `square` says whether the images may be turned.
    """
    return _Commands(inputs, config, square).of(name)


@dataclass(frozen=True)
class _Commands:
    inputs: Inputs
    config: CompareConfig
    square: bool

    def of(self, name: str) -> list[str]:
        c, labels = self.config, self.inputs.labeled
        if name.startswith("round-"):
            number = name.removeprefix("round-")
            changed = "".join(f" --set {setting}" for setting in changed_settings(self.config))
            return [f"factory rounds {self._given()} --rounds {number} --out model{changed}"]
        if name.startswith("labeler-"):
            return [self._labeler(name.removeprefix("labeler-"))]
        if name in MEANS:
            return self._mean(name)
        if name.startswith("generator-unet"):
            how = " ".join([self._unet(c.label_steps), *self._more(name)])
            start = f"--init {self.inputs.generator}"
            return [f"factory train-deeplab --data {labels} {start} --out model {how}"]
        if name == "mixture":
            data = f"--data synthetic --data photographs --data {labels} --mix 0.4,0.4,0.2"
            how = self._unet(c.pretrain_steps)
            pools = [self._pool("synthetic"), self._pool("photographs")]
            return [self._labeler(), *pools, f"factory train-deeplab {data} --out model {how}"]
        is_deeplab = name.startswith("deeplab")
        how_of = self._deeplab if is_deeplab else self._unet
        pool = next((p for p in ("photographs", "synthetic") if p in name), None)
        if pool is None:
            more = self._more(name)
            how = " ".join([how_of(c.label_steps), *more])
            return [f"factory train-deeplab --data {labels} --out model {how}"]
        is_finished = name.endswith("-labels")
        out = "taught" if is_finished else "model"
        how = how_of(c.pretrain_steps)
        policy = name.removeprefix(f"{pool}-") if name in POLICIES else None
        lines = [self._labeler(), self._pool(pool, policy)]
        lines.append(f"factory train-deeplab --data {pool} --out {out} {how}")
        if is_finished:
            how = how_of(c.finish_steps, c.finish_lr)
            lines.append(f"factory train-deeplab --data {labels} --init taught --out model {how}")
        return lines

    def _mean(self, name: str) -> list[str]:
        lines, models = [], []
        for number, (member, seed) in enumerate(MEANS[name]):
            models.append(f"model_{number}")
            (line,) = self.of(member)
            lines.append(line.replace("--out model ", f"--out {models[-1]} "))
            if seed:
                lines[-1] += f" --set seed={seed}"
        return [*lines, f"factory average {' '.join(models)} --out model"]

    def _given(self) -> str:
        flags = {"labeled": self.inputs.labeled, "images": self.inputs.images}
        flags["generator"] = self.inputs.generator
        return " ".join(f"--{key} {value}" for key, value in flags.items() if value)

    def _labeler(self, kind: str | None = None) -> str:
        kind, network = kind or self.inputs.kind, self.config.labeler.network
        how = [] if kind == "network" else ["--fast"]
        if kind != "ensemble":
            how.append(f"--set labeler.network.members={network.members}")
            how.append(f"--set labeler.network.steps={network.steps}")
        return (
            f"factory train-labeler --generator {self.inputs.generator} --labeled "
            f"{self.inputs.labeled} --out labeler --kind {kind} {' '.join(how)}"
        )

    def _pool(self, pool: str, policy: str | None = None) -> str:
        if pool == "synthetic":
            n = self.config.synthetic
            return f"factory generate --labeler labeler --n {n} --out synthetic"
        images = self.inputs.images
        selection = "" if policy is None else f" --set selection.policy={policy}"
        return f"factory label --labeler labeler --images {images} --out photographs{selection}"

    def _unet(self, steps: int, lr: float | None = None) -> str:
        return " ".join(["--preset unet", *self._turning(in_preset=True), *self._common(steps, lr)])

    def _deeplab(self, steps: int, lr: float | None = None) -> str:
        how = "--preset modern --encoder resnet18 --set encoder_weights=null --set averaged=true"
        noise = f"--set augment.noise={PRESETS['unet']['augment']['noise']}"
        turning = self._turning(in_preset=False)
        return " ".join([how, noise, *turning, *self._common(steps, lr)])

    def _turning(self, in_preset: bool) -> list[str]:
        """Vertical flips and quarter turns, where they differ from the preset's."""
        flips = not self.config.upright
        wanted = {"vertical_flip": flips, "quarter_turns": flips and self.square}
        return [
            f"--set augment.{key}={str(value).lower()}"
            for key, value in wanted.items()
            if value != in_preset
        ]

    def _common(self, steps: int, lr: float | None) -> list[str]:
        return [f"--steps {steps}", f"--set lr={lr or self.config.lr:g}"]

    @staticmethod
    def _more(name: str) -> list[str]:
        if name.endswith("-strong"):
            return [
                "--set augment.scale=[0.5,1]",
                "--set augment.brightness=0.2",
                "--set augment.contrast=0.2",
                "--set augment.saturation=0.1",
            ]
        return ["--set encoder_weights=imagenet"] if name.endswith("-imagenet") else []
