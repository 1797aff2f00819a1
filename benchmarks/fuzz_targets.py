"""Tiny valid files of every kind a user hands in, and the command that reads each.

Nothing here is trained: untrained networks are read and run like any others.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from benchmarks.mutations import damaged_bytes, damaged_json, damaged_tar, damaged_text, damaged_zip

SIZE = 16
CLASSES = ["background", "cell", "nucleus"]


@dataclass(frozen=True)
class Target:
    """A file below a valid `folder`; the command reads a copy of the folder in which it is damaged.

    `command(folder, out)` gives the arguments of `factory`; `damage` the strategy for its bytes.
    """

    name: str
    folder: Path
    file: str
    command: Callable[[Path, Path], list[str]]
    damage: Callable[[bytes], st.SearchStrategy[bytes]]

    def place(self, content: bytes, where: Path) -> None:
        """Copy the folder to `where`, with `content` as the file."""
        shutil.copytree(self.folder, where)
        (where / self.file).write_bytes(content)


def json_bytes(content: bytes) -> st.SearchStrategy[bytes]:
    """Damage to a JSON file: its values, or its bytes."""
    return damaged_text(json.loads(content))


def safetensors_bytes(content: bytes) -> st.SearchStrategy[bytes]:
    """Damage to a safetensors file: mostly to its header, which is JSON."""
    length = int.from_bytes(content[:8], "little")
    header, tensors = json.loads(content[8 : 8 + length]), content[8 + length :]

    def packed(value: object) -> bytes:
        text = json.dumps(value).encode(errors="surrogatepass")
        return len(text).to_bytes(8, "little") + text + tensors

    return damaged_json(header).map(packed) | damaged_bytes(content)


def make_targets(folder: Path) -> list[Target]:
    """Write valid files into `folder` and return the targets on them."""
    torch.manual_seed(0)
    pictures, annotated = _pictures(folder / "pictures"), _annotated(folder / "annotated")
    model, ddpm = _segmenter(folder / "model"), _ddpm(folder / "ddpm")
    gan, checkpoints = _gan(folder / "gan"), _checkpoints(folder / "checkpoints")
    labeler = _labeler(folder / "labeler", ddpm)
    dataset = _dataset(folder / "dataset", ddpm, labeler)
    recipe = _recipe(folder / "recipe", ddpm, labeler)
    few = ["--set", "generator.steps=1", "--set", "generator.batch_size=2"]

    def predict(picture: str) -> Callable[[Path, Path], list[str]]:
        return lambda at, out: [
            *("predict", "--model", str(model), "--images", str(at / picture), "--out", str(out))
        ]

    def convert(name: str) -> Callable[[Path, Path], list[str]]:
        return lambda at, out: ["convert", str(at / name), str(out), "--no-check"]

    def sample(at: Path, out: Path) -> list[str]:
        return ["sample", "--generator", str(at), "--n", "1", "--out", str(out), *few]

    def sample_gan(at: Path, out: Path) -> list[str]:
        return ["sample", "--generator", str(at), "--n", "1", "--out", str(out)]

    def evaluate(at: Path, out: Path) -> list[str]:
        return ["evaluate", "--model", str(model), "--labeled", str(at), "--json", f"{out}/e.json"]

    def evaluate_labeler(at: Path, out: Path) -> list[str]:
        return ["evaluate", "--labeler", str(at), "--labeled", str(annotated)]

    def use_model(at: Path, out: Path) -> list[str]:
        images = str(pictures / "a.png")
        return ["predict", "--model", str(at), "--images", images, "--out", str(out)]

    def verify(at: Path, out: Path) -> list[str]:
        return ["verify", str(at)]

    def status(at: Path, out: Path) -> list[str]:
        return ["status", str(at)]

    def generate(at: Path, out: Path) -> list[str]:
        path = str(at / "recipe.yaml")
        return ["generate", "--recipe", path, "--n", "2", "--out", str(out), "--dry-run", *few]

    images = [
        Target(f"picture {path.suffix}", pictures, path.name, predict(path.name), damaged_bytes)
        for path in sorted(pictures.iterdir())
    ]
    masks = [
        Target(f"mask {path.suffix}", annotated, f"masks/{path.name}", evaluate, damaged_bytes)
        for path in sorted((annotated / "masks").iterdir())
    ]
    checkpoint_files = [
        Target(f"checkpoint {path.name}", checkpoints, path.name, convert(path.name), kind)
        for path in sorted(checkpoints.iterdir())
        for kind in (damaged_zip if path.suffix == ".pt" else damaged_bytes,)
    ]
    return [
        *images,
        *masks,
        Target("classes.json", annotated, "classes.json", evaluate, json_bytes),
        *_exports(folder / "exports", annotated),
        *checkpoint_files,
        Target("U-Net config", ddpm, "unet/config.json", sample, json_bytes),
        Target(
            *("U-Net weights", ddpm, "unet/diffusion_pytorch_model.safetensors"),
            *(sample, safetensors_bytes),
        ),
        Target("schedule", ddpm, "scheduler/scheduler_config.json", sample, json_bytes),
        Target("StyleGAN2 config", gan, "generator.json", sample_gan, json_bytes),
        Target("labeler.json", labeler, "labeler.json", evaluate_labeler, json_bytes),
        Target("labeler", labeler, "labeler.safetensors", evaluate_labeler, safetensors_bytes),
        Target("model.json", model, "model.json", use_model, json_bytes),
        Target("model", model, "model.safetensors", use_model, safetensors_bytes),
        Target("dataset.json, verify", dataset, "dataset.json", verify, json_bytes),
        Target("dataset.json, status", dataset, "dataset.json", status, json_bytes),
        Target("samples.parquet", dataset, "samples.parquet", verify, damaged_bytes),
        Target("shard", dataset, "shards/tiny-000000.tar", verify, damaged_tar),
        Target("recipe", recipe, "recipe.yaml", generate, lambda text: _yaml_bytes(text)),
    ]


def _yaml_bytes(content: bytes) -> st.SearchStrategy[bytes]:
    import yaml

    return damaged_text(yaml.safe_load(content)) | damaged_bytes(content)


def _exports(folder: Path, annotated: Path) -> list[Target]:
    """The annotated folder in the formats of other programs, each to be imported again."""
    from factory_core.annotated.formats.exporting import export_annotations, of_folder

    def read(name: str) -> Callable[[Path, Path], list[str]]:
        return lambda at, out: ["annotations", "import", name, str(at), "--out", str(out)]

    files = (
        ("labelme", "a.json", json_bytes),
        ("cvat", "annotations.xml", damaged_bytes),
        ("cvat-mask", "labelmap.txt", damaged_bytes),
        ("coco", "annotations/instances_default.json", json_bytes),
        ("coco-rle", "annotations/instances_default.json", json_bytes),
        ("label-studio", "tasks.json", json_bytes),
        ("voc", "SegmentationClass/a.png", damaged_bytes),
    )
    for name, _, _ in files:
        export_annotations(name, of_folder(annotated), folder / name)
    return [
        Target(f"annotations {name}", folder / name, file, read(name), damage)
        for name, file, damage in files
    ]


def _picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def _pictures(folder: Path) -> Path:
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    image = Image.fromarray(_picture(0))
    for suffix in ("png", "jpg", "bmp", "tif", "webp"):
        image.save(folder / f"a.{suffix}", exif=exif)
    return folder


def _annotated(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    ids = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE) % len(CLASSES)
    for name in "abc":
        Image.fromarray(_picture(ord(name))).save(folder / "images" / f"{name}.png")
    Image.fromarray(ids).save(folder / "masks/a.png")
    Image.fromarray(ids).save(folder / "masks/b.tif")
    np.save(folder / "masks/c.npy", ids)
    palette = [[0, 0, 0], [255, 0, 0], [0, 0, 255]]
    (folder / "classes.json").write_text(json.dumps({"classes": CLASSES, "palette": palette}))
    return folder


def _segmenter(folder: Path) -> Path:
    from train_seg.config import SegmenterConfig
    from train_seg.network.network import build
    from train_seg.network.segmenter import Segmenter

    config = SegmenterConfig(architecture="Unet", encoder="resnet18", encoder_depth=3)
    network = build(config, len(CLASSES), (SIZE, SIZE), pretrained=False)
    Segmenter.create(network, config, CLASSES, None, (SIZE, SIZE), "0" * 64, {}).save(folder)
    return folder


def _ddpm(folder: Path) -> Path:
    from diffusers import DDPMPipeline

    from generators.ddpm.model import build_unet
    from generators.ddpm.training import noise_schedule

    unet = build_unet(SIZE, (8, 16), resnets_per_level=1, attention_levels=1)
    DDPMPipeline(unet, noise_schedule("v_prediction")).save_pretrained(folder)
    return folder


def _gan(folder: Path) -> Path:
    from generators.stylegan2.config import NetworkConfig
    from generators.stylegan2.network import StyleGAN2
    from generators.stylegan2.storage import save

    shape = NetworkConfig(
        resolution=SIZE, z_dim=8, w_dim=8, mapping_layers=2, channel_base=64, channel_max=8
    )
    save(StyleGAN2(shape).requires_grad_(False).eval(), folder)
    return folder


def _checkpoints(folder: Path) -> Path:
    """Files that `convert` reads and refuses: state dicts in wrappers, tensors, programs."""
    folder.mkdir()
    state = {"input_blocks.0.0.weight": torch.zeros(8, 3, 3, 3), "out.2.bias": torch.zeros(3)}
    torch.save({"ema": state, "step": 3}, folder / "wrapped.pt")
    legacy = io.BytesIO()
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    (folder / "legacy.pth").write_bytes(legacy.getvalue())
    tests = Path(__file__).parents[1] / "tests"
    for path in (*(tests / "cases").rglob("*.pkl"), *(tests / "golden").rglob("*.pt")):
        shutil.copy(path, folder)
    return folder


def _labeler(folder: Path, generator: Path) -> Path:
    import generators
    from generators.ddpm.config import DDPMConfig
    from labelers.config import LabelerConfig
    from labelers.ensemble.classifiers import Ensemble
    from labelers.labeler import GeneratorInfo, Labeler, LabelerInfo

    config = DDPMConfig(weights=str(generator))
    loaded = generators.load(config, "cpu")
    labeler = LabelerConfig(members=2, hidden=(4,))
    info = LabelerInfo(
        classes=CLASSES,
        features=loaded.feature_spec,
        generator=GeneratorInfo(digest=loaded.digest, config=config.model_dump(mode="json")),
        image_size=(SIZE, SIZE),
        data_digest="0" * 64,
        config=labeler,
    )
    Labeler(Ensemble(info.features, len(CLASSES), (4,), 2), info).save(folder)
    return folder


def _recipe(folder: Path, generator: Path, labeler: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "name": "tiny",
        "generator": {"weights": str(generator), "steps": 1, "batch_size": 2},
        "labeler": {"weights": str(labeler), "vote": "soft"},
        "dataset": {"shard_size": 2, "samples_per_shard": 2},
        "segmenter": {"encoder": "resnet18", "augment": {"horizontal_flip": True}},
    }
    (folder / "recipe.yaml").write_text(json.dumps(content, indent=1))
    return folder


def _dataset(folder: Path, generator: Path, labeler: Path) -> Path:
    from factory.pipeline.job import Job
    from factory.pipeline.run import run
    from factory.recipe import load_recipe, resolve

    recipe = _recipe(folder.with_name("dataset_recipe"), generator, labeler) / "recipe.yaml"
    run(Job.sampling(resolve(load_recipe(str(recipe), [])), 4, folder))
    return folder
