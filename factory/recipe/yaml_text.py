"""YAML as recipes and `--set` use it: plain values, and no key twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


class RepeatedKeyError(yaml.YAMLError):
    """A mapping gives a key twice; PyYAML would silently keep the last value."""


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue  # a mapping may be merged with several others
            line = key.start_mark.line + 1
            if key.value in lines:
                raise RepeatedKeyError(
                    f"'{key.value}' is given twice, in lines {lines[key.value]} and {line}: keep "
                    "one of them"
                )
            lines[key.value] = line
        return node


def parse_yaml(text: str) -> Any:
    """The value that `text` stands for; raises yaml.YAMLError, RepeatedKeyError for a key."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None


def recipe_yaml(recipe: Mapping[str, Any]) -> str:
    """A resolved recipe as YAML, in the order of its keys."""
    text: str = yaml.safe_dump(dict(recipe), sort_keys=False, default_flow_style=None)
    return text.strip()
