"""Networks that were pickled whole: the tensors in a tree of modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from generators.files.inert import PersistentObject, StoredTensor
from generators.files.machine import InertObject

if TYPE_CHECKING:
    from generators.files.torch_file import TorchFile

MAX_DEPTH = 12  # of modules in modules: the networks have at most 8
MAX_MEMBERS = 10_000  # of all modules together: the networks have some hundreds
KINDS = ("_parameters", "_buffers", "_modules")


def is_module(value: Any) -> bool:
    """Whether `value` is a pickled module of PyTorch."""
    if not isinstance(value, PersistentObject | InertObject) or not isinstance(value.state, dict):
        return False
    return all(isinstance(value.state.get(kind), dict) for kind in KINDS)


def printable(name: Any) -> str:
    """A name from a file, made safe to print: on one line, without control characters."""
    return ascii(name[:60])[1:-1] if isinstance(name, str) else f"a {type(name).__name__}"


def stored_tensors(module: Any, source: str) -> Iterator[tuple[str, StoredTensor]]:
    """Parameters and lasting buffers of a module and of those inside it, by dotted name.

    Raises ValueError if it is not a module, contains itself, or has too many parts; `source` names
    it there.
    """
    waiting = [("", module)]
    seen: set[int] = set()
    members_seen = 0
    while waiting:
        prefix, current = waiting.pop()
        if id(current) in seen or prefix.count(".") > MAX_DEPTH:
            raise ValueError(f"{source} contains the module {prefix} twice or too deep")
        seen.add(id(current))
        if not is_module(current):
            raise ValueError(f"the module {prefix or source} has no parameters, buffers or modules")
        passing = current.state.get("_non_persistent_buffers_set")
        for kind in KINDS:
            members = current.state[kind]
            # Modules that share one long dictionary make a long list of tensors of a small file.
            members_seen += len(members)
            if members_seen > MAX_MEMBERS:
                raise ValueError(f"{source} has more than {MAX_MEMBERS} parts")
            for name, value in members.items():
                path = prefix + printable(name)
                if kind == "_modules" and isinstance(value, PersistentObject | InertObject):
                    waiting.append((f"{path}.", value))
                elif kind != "_modules" and isinstance(value, StoredTensor):
                    if kind == "_parameters" or not _lists(passing, name):
                        yield path, value
                elif value is not None:
                    raise ValueError(f"{path} is not a valid entry of {kind}")


def _lists(names: Any, name: str) -> bool:
    return isinstance(names, list) and len(names) <= MAX_MEMBERS and name in names


def plain(file: TorchFile) -> Any:
    """The content of `file` as dictionaries and lists; each module becomes its state dict.

    Other objects become the dictionary of their attributes or entries. Raises ValueError if a
    tensor is damaged.
    """
    done: dict[int, Any] = {}  # a value may be in many places, or inside itself

    def convert(value: Any, depth: int) -> Any:
        if id(value) in done or depth > MAX_DEPTH:
            return done.get(id(value))
        done[id(value)] = None
        if isinstance(value, StoredTensor):
            result: Any = file.tensor(value)
        elif is_module(value):
            result = {n: file.tensor(t) for n, t in stored_tensors(value, value.class_name[:60])}
        elif isinstance(value, InertObject | PersistentObject):
            attributes = _attributes(value)
            result = {name: convert(item, depth + 1) for name, item in attributes.items()}
        elif isinstance(value, dict):
            result = {name: convert(item, depth + 1) for name, item in value.items()}
        elif isinstance(value, list | tuple):
            result = [convert(item, depth + 1) for item in value]
        else:
            result = value
        done[id(value)] = result
        return result

    return convert(file.value, 0)


def _attributes(value: InertObject | PersistentObject) -> dict[str, Any]:
    entries = value.entries if isinstance(value, InertObject) else {}
    state = value.state[0] if isinstance(value.state, tuple) and value.state else value.state
    return (state if isinstance(state, dict) else {}) | entries
