"""Tars of other programs among the data of `train-deeplab`: their members and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from factory_core.annotated.class_list import ClassList
    from train_seg.data.foreign import ForeignTars, Members


@dataclass(frozen=True)
class TarReader:
    """How to read tars: their members, and the classes of their masks, None if not given."""

    members: Members
    classes: ClassList | None

    def open(self, pattern: str, expected: Sequence[str] | None) -> ForeignTars:
        """The tars of `pattern`; `expected` are the classes of a dataset that they join.

        Raises ValueError if neither names the classes, otherwise as `open_tars`.
        """
        from train_seg.data.foreign import open_tars

        names = expected if self.classes is None else self.classes.names
        if names is None:
            raise ValueError(
                f"--data {pattern}: found no names of classes: give --classes background,cell, in "
                "id order, or --classes classes.json"
            )
        palette = None if self.classes is None else self.classes.palette
        return open_tars(pattern, self.members, names, palette)


def tar_reader(
    data: Sequence[object], members: str | None, classes: str | None
) -> TarReader | None:
    """The reader of the tars among `data`, which are text; None if there are none.

    Raises ValueError for options without tars, or tars without --members.
    """
    tars = [pattern for pattern in data if isinstance(pattern, str)]
    if not tars:
        if members is not None or classes is not None:
            raise ValueError(
                "found --members or --classes without tars: they are for --data such as "
                "'other-{000000..000099}.tar'"
            )
        return None
    if members is None:
        raise ValueError(
            f"--data {tars[0]}: found no --members: say which members of a sample are image and "
            "mask, such as --members image=jpg,mask=seg.png"
        )
    from train_seg.data.foreign import Members

    return TarReader(Members.parse(members), None if classes is None else _class_list(classes))


def _class_list(text: str) -> ClassList:
    """The classes in `A,B,...`, or in a classes.json."""
    from factory_core.annotated.class_list import ClassList, read_class_file

    if text.endswith(".json"):
        if not Path(text).is_file():
            raise FileNotFoundError(f"--classes {text}: no such file")
        found = read_class_file(Path(text), None)
        if found.new_ids is not None:
            raise ValueError(f'--classes {text}: tars cannot be read with "reduce_zero_label"')
        return found
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) != len(names):
        raise ValueError(f"--classes {text}: expected distinct names such as background,cell")
    return ClassList(names)
