"""Finding and reading the image and mask files that people have."""

from factory_core.images.decoding import check_image, load_image, measured, read_image, to_rgb
from factory_core.images.files import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    counted,
    find_images,
    left_out,
    list_files,
    list_images,
    stem_of,
)
from factory_core.images.masks import (
    IGNORE,
    Colour,
    Mask,
    Palette,
    decode_mask,
    load_mask,
    read_mask,
)
from factory_core.images.notes import folder_notes, image_notes
from factory_core.images.opening import decode_file
from factory_core.images.resizing import Size, image_tensor, mask_tensor, wxh
from factory_core.images.traits import Traits, traits
from factory_core.pictures import DEFAULT_PICTURES, Pictures, remember, remembered

__all__ = [
    "DEFAULT_PICTURES",
    "IGNORE",
    "IMAGE_SUFFIXES",
    "MASK_SUFFIXES",
    "Colour",
    "Mask",
    "Palette",
    "Pictures",
    "Size",
    "Traits",
    "check_image",
    "counted",
    "decode_file",
    "decode_mask",
    "find_images",
    "folder_notes",
    "image_notes",
    "image_tensor",
    "left_out",
    "list_files",
    "list_images",
    "load_image",
    "load_mask",
    "mask_tensor",
    "measured",
    "read_image",
    "read_mask",
    "remember",
    "remembered",
    "stem_of",
    "to_rgb",
    "traits",
    "wxh",
]
