"""Webdataset tars that another program wrote, as training data.

The key and the members of a sample are as in webdataset. Samples are counted once, from the headers
alone, so that they join the same stream as our own shards: exact epochs, resumable at any step.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from PIL import Image

from factory_core.images import Palette
from factory_core.storage import Store, open_store
from train_seg.config import SHUFFLE_BUFFER
from train_seg.data.augment import Augment
from train_seg.data.samples import Decoder, Size
from train_seg.data.shards import Header, Tar, TarSource, member_headers

SUFFIX = ".tar"
COUNTED_IN = "its first reading"


@dataclass(frozen=True)
class Members:
    """The extensions of the members that are a sample's image and mask, such as `seg.png`."""

    image: str
    mask: str

    @classmethod
    def parse(cls, text: str) -> Members:
        """`image=jpg,mask=seg.png`, in any order; raises ValueError."""
        pairs = dict(part.strip().split("=", 1) for part in text.split(",") if "=" in part)
        if set(pairs) != {"image", "mask"} or not all(pairs.values()) or text.count(",") != 1:
            raise ValueError(
                f"--members {text}: expected the extensions of image and mask, such as "
                "image=jpg,mask=seg.png"
            )
        return cls(**{name: value.lower().removeprefix(".") for name, value in pairs.items()})


@dataclass(frozen=True)
class ForeignTars:
    """Tars and what is needed to read them; `image_size` (height, width) is that of the first."""

    name: str
    tars: tuple[Tar, ...]
    members: Members
    classes: Sequence[str]
    image_size: Size
    palette: Palette | None = None

    def source(
        self,
        size: Size,
        augment: Augment,
        seed: int,
        shuffle_buffer: int = SHUFFLE_BUFFER,
        skip_damaged: bool = False,
        soft: bool = False,
    ) -> TarSource:
        """The samples resized to `size`; their masks count as certain."""
        decoder = Decoder(
            size,
            augment,
            len(self.classes),
            limit=None,
            seed=seed,
            soft=soft,
            is_certain=True,
            image=(self.members.image,),
            mask=self.members.mask,
            palette=self.palette,
        )
        return TarSource(self.tars, decoder, shuffle_buffer, skip_damaged)


def open_tars(
    pattern: str, members: Members, classes: Sequence[str], palette: Palette | None = None
) -> ForeignTars:
    """The tars at a path or URL, with braces as in webdataset: `other-{000000..000099}.tar`.

    `palette` has one `[r, g, b]` per class, for masks in colours.

    Raises:
        FileNotFoundError: a tar is missing.
        ValueError: a tar is damaged, or no sample of the first one has both members.
    """
    from webdataset.shardlists import expand_urls

    tars, size = [], None
    for url in expand_urls(pattern):
        folder, _, name = url.rpartition("/")
        store = open_store(folder or ("/" if url.startswith("/") else "."))
        tar, pair = _counted(store, name, members)
        tars.append(tar)
        if size is None:
            size = _size_of(store, name, pair)
    assert size is not None  # a pattern gives at least one name
    return ForeignTars(pattern, tuple(tars), members, classes, size, palette)


def _counted(store: Store, name: str, members: Members) -> tuple[Tar, Header]:
    """A tar with its number of samples, and the image of the first sample that has both members.

    Its digest is that of the headers: names, sizes and times.
    """
    if not store.exists(name):
        raise FileNotFoundError(f"{store / name}: no such file, expected a tar of webdataset")
    digest, samples = hashlib.sha256(), 0
    first: Header | None = None
    seen: list[str] = []
    try:
        with store.open(name) as file:
            for _, group in groupby(member_headers(file), key=lambda header: header.key):
                headers = {header.extension: header for header in group}
                samples += 1
                seen = seen or sorted(headers)
                if first is None and members.mask in headers:
                    first = headers.get(members.image)
                for header in headers.values():
                    digest.update(repr(header).encode())
    except tarfile.TarError as error:
        raise ValueError(f"{store / name} is no intact tar ({error}): copy it again") from None
    if first is None:
        found = ", ".join(seen) or "nothing"
        raise ValueError(
            f"--members image={members.image},mask={members.mask}: no sample of {store / name} has "
            f"both; its first has {found}: name two of them"
        )
    return Tar(store, name, samples, digest.hexdigest(), COUNTED_IN), first


def _size_of(store: Store, name: str, image: Header) -> Size:
    """(height, width) of an image in a tar."""
    with store.open(name) as file:
        file.seek(image.offset)
        data = file.read(image.size)
    try:
        width, height = Image.open(io.BytesIO(data)).size
    except (OSError, ValueError, SyntaxError) as error:
        where = f"{store / name}: {image.key}.{image.extension}"
        raise ValueError(f"{where} is no image that can be read ({error})") from None
    return height, width
