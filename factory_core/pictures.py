"""How pictures become 8-bit RGB: which page of a stack, and which values become black and white.

A 16-bit or float file does not say whether 4095, 65535 or its largest value means white. One pair
of values for all pictures keeps them comparable, so it is measured over a whole folder, never per
picture, and kept with whatever is trained on them: `pictures.json` in the folder of a generator,
a labeler or a segmenter, and `pictures` in the recipe of a dataset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from factory_core.models import read_model
from factory_core.storage import write_json

PICTURES_NAME = "pictures.json"
UNET_DIR = "unet"  # of a diffusion model in diffusers' layout
Level = Annotated[float, Field(allow_inf_nan=False)]
Percentile = Annotated[float, Field(ge=0, le=100)]


class Pictures(BaseModel):
    """The `pictures:` section of a recipe. Pictures of 8 bits per channel are never scaled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    range: Literal["percentiles", "full"] | tuple[Level, Level] = Field(
        default="percentiles",
        description="values that become 0 and 255, of pictures with more than 8 bits per channel: "
        "[low, high]; percentiles over the whole folder (0 and 255 if all values are whole numbers "
        "of that range); full: the range of the type, of floats 0 to 1",
    )
    percentiles: tuple[Percentile, Percentile] = Field(
        default=(0.1, 99.9), description="low and high, of `range: percentiles`"
    )
    page: int | None = Field(
        default=None,
        ge=0,
        description="of files that hold several, counted from 0; none: they are refused",
    )

    @model_validator(mode="after")
    def _ascending(self) -> Pictures:
        low, high = self.percentiles if isinstance(self.range, str) else self.range
        if not low < high:
            raise ValueError(f"expected the lower value first, found {[low, high]}")
        return self

    @property
    def levels(self) -> tuple[float, float] | None:
        """The values that become 0 and 255, if they are known."""
        return None if isinstance(self.range, str) else self.range

    def over(self, other: Pictures | None) -> Pictures:
        """These settings where they were given, those of `other` elsewhere."""
        if other is None:
            return self
        given = {key: getattr(self, key) for key in self.model_fields_set}
        if "percentiles" in given:  # to be measured again
            given.setdefault("range", "percentiles")
        return other.model_copy(update=given)


DEFAULT_PICTURES = Pictures()


def remember(folder: Path, pictures: Pictures) -> None:
    """Write `folder`/pictures.json; none for the defaults, with which 8-bit pictures are read."""
    if pictures != DEFAULT_PICTURES:
        write_json(folder / PICTURES_NAME, pictures.model_dump(mode="json"))
    else:
        (folder / PICTURES_NAME).unlink(missing_ok=True)


def remembered(folder: str | Path | None) -> Pictures | None:
    """What `remember` wrote to `folder`, None if it wrote nothing or `folder` is a file.

    A generator may be given as its subfolder `unet`. Raises ValueError if the file is damaged.
    """
    if folder is None:
        return None
    folder = Path(folder)
    places = [folder, folder.parent] if folder.name == UNET_DIR else [folder]
    for file in (place / PICTURES_NAME for place in places):
        if file.is_file():
            return read_model(file, Pictures, "copy the folder again")
    return None
