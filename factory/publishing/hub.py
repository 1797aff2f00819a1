"""Sending a dataset to the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from factory_core.dataset import MANIFEST_NAME, PREVIEW_NAME, SAMPLES_NAME, SHARDS_DIR, Manifest

SCHEME = "hf://"
REPOSITORY = re.compile(r"(?:datasets/)?([\w][\w.-]*/[\w][\w.-]*)", re.ASCII)
CLIENTS = ("httpx", "httpcore", "hf_xet")  # their errors become one line
PAGE = "https://huggingface.co/datasets/"


def repository(address: str) -> str:
    """`USER/NAME` of `hf://USER/NAME` or `hf://datasets/USER/NAME`; raises ValueError."""
    found = REPOSITORY.fullmatch(address.removeprefix(SCHEME).rstrip("/"))
    if not address.startswith(SCHEME) or found is None:
        raise ValueError(f"{address}: expected hf://USER/NAME, the address of a dataset on the hub")
    return found[1]


def files_of(folder: Path, manifest: Manifest, others: tuple[str, ...]) -> list[str]:
    """Paths in `folder` to send: the dataset's files, and those of `others` that exist.

    Work in progress, hidden files and whatever else lies there are left out.
    """
    shards = [f"{SHARDS_DIR}/{shard.name}" for shard in manifest.shards]
    extra = [name for name in (PREVIEW_NAME, *others) if (folder / name).is_file()]
    return [MANIFEST_NAME, SAMPLES_NAME, *shards, *extra]


def upload(folder: Path, files: list[str], name: str, is_private: bool) -> str:
    """Send `files` of `folder` to the dataset `name`, created if missing; returns its address.

    Rerun to resume: what has arrived is not sent again. Shards on the hub that `files` lacks are
    deleted there. Raises OSError, in one line without any token, if the hub refuses or does not
    answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        url = api.create_repo(name, repo_type="dataset", private=is_private, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=files,
            delete_patterns=f"{SHARDS_DIR}/*",
            commit_message="Dataset",
        )
    except LocalTokenNotFoundError:
        raise PermissionError(_no_access(name)) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise PermissionError(_no_access(name)) from None
        said = error.server_message or f"status {status}"
        raise OSError(f"{SCHEME}{name}: the hub refuses ({said})") from None
    except Exception as error:
        if not type(error).__module__.startswith(CLIENTS):
            raise
        raise OSError(
            f"{SCHEME}{name}: {api.endpoint} does not answer ({type(error).__name__}): check the "
            "network and rerun the command to resume"
        ) from None
    return str(url)


def _no_access(name: str) -> str:
    return (
        f"{SCHEME}{name}: access denied: log in with `hf auth login`, or set HF_TOKEN to a token "
        "that may write there"
    )
