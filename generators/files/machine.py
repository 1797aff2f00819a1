"""A machine that runs harmless pickle opcodes only.

It builds plain values, and calls nothing but functions from a given table of names, which `inert`
supplies. Nothing in a pickle is executed or imported.

Python's own unpickler, restricted to harmless names, executes nothing either. But a file of 200
bytes can keep it busy for years (a dictionary key made of tuples of tuples, each twice as large as
the last, is hashed part by part), and one of a few kilobytes can fill any memory (a thousand copies
of one long list). Here every opcode takes the same short time: keys are text, nothing is copied,
and no object decides what an opcode does.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

Names = Mapping[tuple[str, str], Any]

# Opcodes that push the value they carry; `pickletools` decodes it, within the bounds of the file.
# fmt: off
LITERALS = frozenset({
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
})
# fmt: on
# Opcodes that push a new value. Sets are lists of their members: nothing reads them.
FRESH: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_TUPLE": tuple,
}
WITHOUT_EFFECT = frozenset({"PROTO", "FRAME"})


class Stream(Protocol):
    """Bytes to read: a `BytesIO`, or an `mmap`."""

    def read(self, n: int = ..., /) -> bytes:
        """Up to `n` bytes."""
        ...

    def readline(self) -> bytes:
        """One line."""
        ...

    def tell(self) -> int:
        """The position."""
        ...


class Refused(ValueError):
    """What a pickle contains that no checkpoint needs."""


class Inert(NamedTuple):
    """A function that stands for a callable name; it is harmless and fast for any file."""

    function: Callable[..., Any]


class Buildable:
    """A value that BUILD completes."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        """Take over `state`."""
        raise NotImplementedError


class ClassName(NamedTuple):
    """The name of a class. Its objects are read as data; nothing is called."""

    name: str


class InertObject(Buildable):
    """An object of a class that is not known: its `__dict__`, and what it contains."""

    __slots__ = ("class_name", "entries", "items", "state")

    def __init__(self, class_name: str):
        self.class_name = class_name
        self.state: Any = None
        self.entries: dict[str, Any] = {}
        self.items: list[Any] = []

    def build(self, state: Any) -> None:
        self.state = state


class Machine:
    """Runs one pickle."""

    def __init__(
        self,
        names: Names,
        max_opcodes: int,
        external: Callable[[Any], Any] | None = None,
        lenient: bool = False,
    ):
        """`names` are all that a pickle may refer to.

        `external` makes an object stored elsewhere of its description (none: refused). With
        `lenient`, a key that is not text is replaced by a text, and attributes of dictionaries are
        dropped.
        """
        self.names, self.max_opcodes, self.external = names, max_opcodes, external
        self.lenient = lenient
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []  # the stacks below each open mark
        self.memo: dict[int, Any] = {}

    def run(self, stream: Stream) -> Any:
        """The value of the pickle at the position of `stream`, which then points past it.

        Raises:
            Refused: an opcode, name, call or key that no such pickle has, or too many opcodes.
            Exception: of many types, for damaged files.
        """
        opcodes = pickletools.genops(stream)  # type: ignore[arg-type]  # needs no seek
        for count, (opcode, argument, _) in enumerate(opcodes):
            name = opcode.name
            if count >= self.max_opcodes:
                raise Refused(f"more than {self.max_opcodes} opcodes")
            if name in LITERALS or (self.lenient and name == "BYTEARRAY8"):
                self.stack.append(argument)
            elif name in FRESH:
                self.stack.append(FRESH[name]())
            elif name in STEPS:
                STEPS[name](self, argument)
            elif name == "BINPERSID" and self.external:
                self.stack.append(self.external(self.stack.pop()))
            elif name not in WITHOUT_EFFECT and name != "STOP":
                raise Refused(f"the opcode {name}")
        return self.stack.pop()  # after STOP, where the walk ends

    # --- opcodes ------------------------------------------------------------------------------

    def mark(self, _: Any) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def pop_marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    def make_tuple(self, length: int) -> None:
        items = self.stack[-length:]
        if len(items) < length:
            raise IndexError("the stack is too short")
        self.stack[-length:] = [tuple(items)]

    def make_marked_tuple(self, _: Any) -> None:
        items = tuple(self.pop_marked())
        self.stack.append(items)

    def make_list(self, _: Any) -> None:
        items = self.pop_marked()
        self.stack.append(items)

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, InertObject):
            target = target.items
        if type(target) is not list:
            raise Refused(f"items for a {type(target).__name__}")
        target += items

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, InertObject):
            target = target.entries
        if type(target) is not dict or len(items) % 2:
            raise Refused(f"entries for a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.key(key)] = value

    def key(self, key: Any) -> str:
        """The key of an entry; numbers and objects could take forever to hash."""
        if type(key) is str:
            return key
        if not self.lenient:
            raise Refused(f"a key that is a {type(key).__name__}")
        return str(key) if type(key) in (int, float) else f"a {type(key).__name__}"

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def put(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def push_name(self, module: Any, name: Any) -> None:
        # Compared as a pair: ("collections", "OrderedDict.x") is a different name.
        if type(module) is not str or type(name) is not str:
            raise Refused("a name that is not text")
        if (module, name) not in self.names:
            raise Refused(f"the name {f'{module}.{name}'[:80]!a}")
        self.stack.append(self.names[module, name])

    def call(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if isinstance(function, ClassName):
            if type(arguments) is tuple and [*map(type, arguments)] == [int]:
                self.stack.append(InertObject(function.name))  # a member of an Enum, by its value
                return
            raise Refused(f"a call of {function.name[:80]!a}")
        if not isinstance(function, Inert) or type(arguments) is not tuple:
            raise Refused(f"a call of a {type(function).__name__}")
        self.stack.append(function.function(*arguments))

    def make_object(self, _: Any) -> None:
        if len(self.stack) > 1 and isinstance(name := self.stack[-2], ClassName):
            self.stack[-2:] = [InertObject(name.name)]
        else:
            self.call(None)

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Buildable):
            target.build(state)
        # Old versions of Python write an empty state; that of a state dict is its version.
        elif type(target) is not dict or (state and not self.lenient):
            raise Refused(f"attributes of a {type(target).__name__}")


def _push_global(machine: Machine, argument: Any) -> None:
    module, _, name = str(argument).partition(" ")
    machine.push_name(module, name)


def _push_stack_global(machine: Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.push_name(module, name)


def _set_item(machine: Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_items([key, value])


STEPS: Mapping[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine.mark,
    "TUPLE": Machine.make_marked_tuple,
    "TUPLE1": lambda machine, _: machine.make_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_tuple(3),
    "FROZENSET": Machine.make_list,
    "APPEND": lambda machine, _: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_marked()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.pop_marked()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_marked()),
    "BINGET": Machine.get,
    "LONG_BINGET": Machine.get,
    "BINPUT": Machine.put,
    "LONG_BINPUT": Machine.put,
    "MEMOIZE": Machine.put,
    "GLOBAL": _push_global,
    "STACK_GLOBAL": _push_stack_global,
    "REDUCE": Machine.call,
    "NEWOBJ": Machine.make_object,
    "BUILD": Machine.build,
}
