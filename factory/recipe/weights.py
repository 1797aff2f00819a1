"""Addresses of weights in recipes, and the sha256 of weight files and folders."""

from __future__ import annotations

import hashlib
import importlib.resources
import re
from pathlib import Path

PACKAGE_PREFIX = "package:"
# The files that count as weights: notes, pictures and logs beside them do not change a dataset.
TRAINING_RECORD = "training.json"
WEIGHT_SUFFIXES = frozenset({".safetensors", ".json", ".bin", ".pt", ".pth", ".pkl", ".npz"})
# Checkpoints named in recipes, and the projects that publish them.
PUBLISHED = {
    "lsun_bedroom.pt": "openai/guided-diffusion",
    "lsun_cat.pt": "openai/guided-diffusion",
    "lsun_horse.pt": "openai/guided-diffusion",
    "ffhq.pt": "yandex-research/ddpm-segmentation",
}


def find_weights(key: str, weights: str) -> Path:
    """Absolute path of weights given as a path, `package:some.module/folder` or a hub id.

    `key` names the setting in the error.

    Raises:
        FileNotFoundError: nothing there, or (a hub id) it cannot be fetched.
        ValueError: a `package:` address that is malformed or whose package does not exist.
    """
    path = local_path(key, weights)
    if path.exists():
        return path.resolve()
    if path.name in PUBLISHED:
        raise FileNotFoundError(
            f"{key}: found no {path.name} in {path.parent.absolute()}: download it there (it is "
            f"published with {PUBLISHED[path.name]}), or give --generator FILE"
        )
    # "runs/gen" also looks like a hub id: with a folder "runs" here, it is a mistyped path.
    if re.fullmatch(r"[\w.-]+/[\w.-]+", weights) and not path.parent.is_dir():
        return _fetch_from_hub(key, weights)
    raise FileNotFoundError(f"{key}: {path} does not exist")


def local_path(key: str, weights: str) -> Path:
    """Where `weights` would be on this machine; raises ValueError as `find_weights`."""
    if weights.startswith(PACKAGE_PREFIX):
        return _package_path(key, weights)
    return Path(weights).expanduser()


def _package_path(key: str, weights: str) -> Path:
    module, _, inside = weights.removeprefix(PACKAGE_PREFIX).partition("/")
    if not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"{key}: found {weights!r}, expected {PACKAGE_PREFIX}some.module/folder")
    try:
        root = importlib.resources.files(module)
    except (ModuleNotFoundError, TypeError):  # TypeError: a module that is not a package
        raise ValueError(f"{key}: {weights}: there is no package '{module}'") from None
    return Path(str(root.joinpath(inside)))


def _fetch_from_hub(key: str, repository: str) -> Path:
    """Local snapshot of a Hugging Face repository (weights and their settings only)."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # a dozen unrelated types: offline, not found, gated, ...
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise FileNotFoundError(
            f"{key}: {repository} is neither a folder here nor a hub repository that can be"
            f" fetched ({type(error).__name__}: {reason})"
        ) from None


def weights_sha256(path: Path) -> str:
    """sha256 of a weight file, or of the names and contents of a folder's weight files."""
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    for item in weight_files(path):
        total.update(f"{item.relative_to(path).as_posix()} {weights_sha256(item)}\n".encode())
    return total.hexdigest()


def weight_files(path: Path) -> list[Path]:
    """The files that `weights_sha256` hashes, in order: `path` itself if it is a file."""
    if path.is_file():
        return [path]
    files = (
        f
        for f in path.rglob("*")
        if f.suffix in WEIGHT_SUFFIXES and f.name != TRAINING_RECORD and f.is_file()
    )
    return sorted(files, key=lambda f: f.relative_to(path).as_posix())
