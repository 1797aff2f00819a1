"""Validated settings from YAML content and overrides: `generator.steps=10`.

An error for an unknown key suggests the nearest known one, and every error is one line.
"""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from factory.recipe.yaml_text import RepeatedKeyError, parse_yaml

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Settings = TypeVar("Settings", bound=BaseModel)
LIST_FAULTS = ("tuple_type", "too_short", "too_long")  # pydantic's words for them name tuples


def build_settings(
    model: type[Settings], content: dict[str, Any], overrides: Sequence[str], source: str
) -> Settings:
    """A `model` from `content` with overrides `KEY=VALUE`; the errors of `load_recipe`.

    `source` names the settings in errors.
    """
    apply_overrides(content, overrides)
    known = list(_known_keys(model))
    _open_sections(content, known)
    for key in _keys_of(content, known):
        if key not in known:
            raise ValueError(f"{source}: unknown key '{key}': {_suggest(key, known)}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ValueError(_describe(error, source, model)) from None


def as_overrides(settings: Mapping[str, Any]) -> list[str]:
    """`KEY=VALUE` for each of these settings by dotted key, as `apply_overrides` reads them."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def apply_overrides(content: dict[str, Any], overrides: Sequence[str]) -> None:
    """Write the values of `KEY=VALUE` into `content`, dotted keys into its sections, in order."""
    for override in overrides:
        _apply_override(content, override)


def _suggest(key: str, known: Sequence[str]) -> str:
    """What an unknown key may have meant: a similar key in its section, or the keys there."""
    known = list(dict.fromkeys(known))  # kinds of generator share keys
    section, dot, name = key.rpartition(".")
    siblings = [k for k in known if k.rpartition(".")[0] == section]
    names = [k.removeprefix(section + dot) for k in siblings]
    near = [section + dot + n for n in difflib.get_close_matches(name, names, n=1, cutoff=0.5)]
    # The right name in the wrong section: every section that has it.
    near = near or [k for k in known if k.endswith(f".{name}")]
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"expected one of {', '.join(siblings)}"


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ValueError(f"--set {override}: expected KEY=VALUE, such as generator.steps=10")
    *sections, last = key.strip().split(".")
    for section in sections:
        if content.get(section) is None:  # absent, or `generator:` and nothing after it
            content[section] = {}
        content = content[section]
        if not isinstance(content, dict):
            raise ValueError(f"--set {override}: '{section}' is a value, not a section")
    try:
        content[last] = parse_yaml(text)
    except RepeatedKeyError as error:
        raise ValueError(f"--set {override}: {error}") from None
    except yaml.YAMLError:
        raise ValueError(f"--set {override}: the value is not YAML") from None


def _known_keys(model: type[BaseModel], prefix: str = "", kind: str = "") -> Iterator[str]:
    """Dotted names of all fields, sections included.

    If `kind` is given, and a section may be of several kinds, the other kinds are left out.
    """
    for name, field in model.model_fields.items():
        yield prefix + name
        sections = list(_models_in(field.annotation))
        for section in sections:
            if not kind or len(sections) == 1 or _kind_of(section) in ("", kind):
                yield from _known_keys(section, f"{prefix}{name}.", kind)


def _kind_of(section: type[BaseModel]) -> str:
    """The kind of section that a model describes; empty if there is only one kind."""
    field = section.model_fields.get("kind")
    return "" if field is None else str(typing.get_args(field.annotation)[0])  # of a Literal


def _open_sections(content: dict[str, Any], known: Sequence[str], prefix: str = "") -> None:
    """Treat a section that is named but empty (null in YAML) as one without settings."""
    sections = {key.rpartition(".")[0] for key in known}
    for name, value in content.items():
        key = f"{prefix}{name}"
        if key in sections and value is None:
            content[name] = {}
        elif key in sections and isinstance(value, dict):
            _open_sections(value, known, f"{key}.")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The pydantic models of a field: its type, or the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for argument in typing.get_args(annotation):
            yield from _models_in(argument)


def _keys_of(content: Mapping[Any, Any], known: Sequence[str], prefix: str = "") -> Iterator[str]:
    """Dotted keys of `content`; descends into sections only."""
    for name, value in content.items():
        key = f"{prefix}{name}"
        yield key
        if isinstance(value, dict) and any(k.startswith(f"{key}.") for k in known):
            yield from _keys_of(value, known, f"{key}.")


def _describe(error: ValidationError, source: str, model: type[BaseModel]) -> str:
    """The first error of a validation, in one line."""
    first, known = _without_place(error.errors()[0]), list(_known_keys(model))
    key, kind = _key_of(first["loc"], known)
    if first["type"] in LIST_FAULTS and (found := _wrong_list(first, model)):
        return f"{source}: '{key}' is {first['input']!r}: {found}"
    if first["type"] == "missing":
        return f"{source}: '{key}' is missing: write it there or give --set {key}=..."
    if first["type"] == "union_tag_invalid":
        context = first["ctx"]
        return f"{source}: '{key}.kind' is {context['tag']!r}: expected {context['expected_tags']}"
    if first["type"] == "extra_forbidden" and kind:
        hint = _suggest(key, list(_known_keys(model, kind=kind)))
        return f"{source}: '{key}' is not a setting of kind '{kind}': {hint}"
    message = first["msg"].removeprefix("Value error, ")
    # For a whole section, the message itself says which keys conflict.
    subject = f"'{key}' is {first['input']!r}: " if key else ""
    if isinstance(first["input"], dict):
        subject = f"'{key}': " if key else ""
    return f"{source}: {subject}{message[0].lower()}{message[1:]}"


def _without_place(error: ErrorDetails) -> ErrorDetails:
    """An error about a value that a list lacks, as one about the list."""
    if error["type"] == "missing" and isinstance(error["loc"][-1], int):
        return {**error, "type": "too_short", "loc": error["loc"][:-1]}
    return error


def _wrong_list(error: ErrorDetails, model: type[BaseModel]) -> str:
    """What was expected instead of no list, or of one of the wrong length; empty if unknown."""
    values = _values_at(model, error["loc"])
    if not values:
        return ""
    length = None if values[-1] is Ellipsis else len(values)
    what = "a list" if length is None else f"a list of {length} values"
    found = error["input"]
    if length is None and isinstance(found, list | tuple):
        return "expected at least one value"
    if isinstance(found, bool) or not isinstance(found, int | float):
        return f"expected {what}"
    return f"expected {what}, such as {[found] * (length or 1)}"


def _values_at(annotation: Any, location: Sequence[int | str]) -> tuple[Any, ...]:
    """The types of the values of the tuple at `location`; empty if there is none."""
    for part in location:
        fields = [
            m.model_fields[str(part)] for m in _models_in(annotation) if part in m.model_fields
        ]
        if fields:
            annotation = fields[0].annotation
        elif isinstance(part, int) and (values := _tuple_values(annotation)):
            annotation = values[0]
    return _tuple_values(annotation)


def _tuple_values(annotation: Any) -> tuple[Any, ...]:
    """The types of the values of a tuple type, or of the first one in a union."""
    if typing.get_origin(annotation) is tuple:
        return typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return next(filter(None, map(_tuple_values, typing.get_args(annotation))), ())
    return ()


def _key_of(location: Sequence[int | str], known: Sequence[str]) -> tuple[str, str]:
    """The dotted key of a value that pydantic rejects, and the kind of its section.

    pydantic puts the kind, such as `ddpm`, between the section and the key; it is empty for
    sections of which there is only one kind.
    """
    key = kind = ""
    for part in map(str, location):
        longer = f"{key}.{part}" if key else part
        if longer in known or part.isdigit() or not key:
            key = longer
        else:
            kind = part
    return key, kind
