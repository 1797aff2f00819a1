"""Tensors on a device that only pretends to be a GPU.

Their values lie in ordinary memory, and the CPU computes every operation on them, after the checks
that CUDA would make:

- operands on different devices are refused, with CUDA's exceptions: CPU scalars in element-wise
  operations, and CPU indices of a device tensor;
- a CPU generator does not draw for a device tensor, and `numpy()` of one is refused;
- an operator without a CUDA kernel is refused.

`NOTES` counts where the host waits for the device. What this cannot show: rounding, kernels that
lack a number format, memory, speed, CUDA graphs, `torch.compile`, NCCL.

Importing this module takes torch's slot for a backend written in Python, and replaces
`torch.inference_mode`, which knows no wrapped tensors: use a process of its own, and import it
before the project (see `tests.pretended.program`).
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

from tests.pretended import NAME

OURS = ("factory", "factory_core", "generators", "labelers", "train_seg")
aten = torch.ops.aten


class Mismatch(RuntimeError):
    """What CUDA would refuse."""


class Notes:
    """Where the host waits for the device: `waits`, and `pageable` copies, which may wait too."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.pageable: Counter[str] = Counter()


NOTES = Notes()
PINNED: set[int] = set()  # data_ptr of the memory that was pinned


def where() -> str:
    """The innermost line of the project on the stack; else the innermost outside torch."""
    frames = traceback.extract_stack()[:-2]
    for is_wanted in (
        lambda parts: parts & set(OURS),
        lambda parts: not parts & {"torch", "tests"},
    ):
        for frame in reversed(frames):
            path = Path(frame.filename)
            if is_wanted(set(path.parts)) and "pretended" not in path.parts:
                return f"{'/'.join(path.parts[-3:])}:{frame.lineno}"
    return "?"


# --- the backend -----------------------------------------------------------------------------


class _Backend(_DummyBackendModule):
    """What torch asks of the module of a backend."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        return True

    def manual_seed(self, seed: int) -> None: ...

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None: ...

    def synchronize(self, device: Any = None) -> None: ...

    def set_device(self, device: Any) -> None: ...

    def empty_cache(self) -> None: ...


def _inference_mode(mode: Any = True) -> Any:
    if callable(mode):
        return torch.no_grad()(mode)
    return torch.no_grad() if mode else contextlib.nullcontext()


torch.inference_mode = _inference_mode  # type: ignore[assignment,misc]
_setup_privateuseone_for_python_backend(NAME, _Backend())
DEVICE = torch.device(NAME, 0)


class DeviceTensor(torch.Tensor):
    """A tensor that says it is on the device; `value` is the CPU tensor with its contents."""

    value: torch.Tensor

    @staticmethod
    def __new__(cls, value: torch.Tensor) -> Any:
        self = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            value.size(),
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device=DEVICE,
        )
        self.value = value
        return self

    @property
    def data(self) -> torch.Tensor:
        with torch.no_grad():
            return DeviceTensor(self.value)

    @data.setter
    def data(self, other: DeviceTensor) -> None:
        torch.Tensor.data.__set__(self, other)  # type: ignore[attr-defined]
        self.value = other.value

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copied: torch.Tensor = DeviceTensor(self.value.detach().clone())
            if isinstance(self, torch.nn.Parameter):
                copied = torch.nn.Parameter(copied, self.requires_grad)
            memo[id(self)] = copied.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __repr__(self) -> str:  # type: ignore[override]
        return f"DeviceTensor({self.value})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.value.detach().__reduce_ex__(protocol)

    def tolist(self) -> Any:
        NOTES.waits[f"tolist at {where()}"] += 1
        return self.value.tolist()

    def pin_memory(self, *_: Any) -> torch.Tensor:
        raise Mismatch(f"only CPU tensors can be pinned, at {where()}")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


# Called with Python's dispatch switched off, as when `tensor[[1, 2]]` makes its index.
_ATEN = torch.library.Library("aten", "IMPL", "PrivateUse1")


def _empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> torch.Tensor:
    layout = memory_format or torch.contiguous_format
    return DeviceTensor(torch.empty(size, dtype=dtype, memory_format=layout))


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> torch.Tensor:
    return DeviceTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Any, target: Any, non_blocking: bool = False) -> Any:
    _value(target).copy_(_value(source))
    if isinstance(target, DeviceTensor) and not isinstance(source, DeviceTensor):
        _note_upload(source)
    return target


_ATEN.impl("empty.memory_format", _empty)
_ATEN.impl("empty_strided", _empty_strided)
_ATEN.impl("_copy_from", _copy_from)


# --- every operation -------------------------------------------------------------------------

COPIES = {aten.copy_.default, aten._to_copy.default, aten.copy.default}
INDEXING = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}
# The shape or the value of the result is needed on the host.
WAITING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.bincount.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.equal.default,
    aten._linalg_check_errors.default,
}
WHOLE = {aten.copy_.default, aten.detach.default}  # made of others, but looked at as one


def _value(tensor: Any) -> Any:
    return tensor.value if isinstance(tensor, DeviceTensor) else tensor


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The result of `func`, on the device unless it is a copy to the host."""
    if func._can_decompose() and func not in WHOLE:
        with Pretending():
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
    tensors = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, torch.Tensor)]
    theirs = [t for t in tensors if not isinstance(t, DeviceTensor)]
    if theirs and func not in COPIES:
        _check_devices(func, args, theirs)
    target = kwargs.get("device")
    to_host = target is not None and torch.device(target).type == "cpu"
    _note(func, args, theirs, to_host)
    _check_kernel(func, kwargs)
    inner = tree_map(_value, kwargs)
    if "device" in inner:
        inner["device"] = torch.device("cpu")
    inner.pop("pin_memory", None)
    result = func(*tree_map(_value, args), **inner)
    if to_host:
        return result
    wrapped = tree_map(lambda t: DeviceTensor(t) if isinstance(t, torch.Tensor) else t, result)
    if func._schema.is_mutable or func.is_view:
        return return_and_correct_aliasing(func, args, kwargs, wrapped)
    return wrapped


def _check_devices(func: Any, args: Any, theirs: list[torch.Tensor]) -> None:
    if func in INDEXING and isinstance(args[0], DeviceTensor):
        indices = [i for i in args[1] if i is not None]
        theirs = [t for t in theirs if not any(t is i for i in indices)]
    scalars = all(t.ndim == 0 for t in theirs)
    fills = str(func).startswith(("aten.fill_", "aten.masked_fill", "aten._foreach"))
    pointwise = torch.Tag.pointwise in func.tags or func in INDEXING
    if not theirs or (scalars and (fills or pointwise)):
        return
    shapes = [tuple(t.shape) for t in theirs]
    raise Mismatch(f"{func} has device tensors and CPU ones of shape {shapes}, at {where()}")


def _check_kernel(func: Any, kwargs: dict[str, Any]) -> None:
    if not torch._C._dispatch_has_computed_kernel_for_dispatch_key(func.name(), "CUDA"):
        raise Mismatch(f"{func} has no CUDA kernel, at {where()}")
    generator = kwargs.get("generator")
    if isinstance(generator, torch.Generator) and generator.device.type == "cpu":
        raise Mismatch(
            f"{func} needs a generator of the device, found one of the CPU, at {where()}"
        )


def _note(func: Any, args: Any, theirs: list[torch.Tensor], to_host: bool) -> None:
    masks = func in INDEXING and any(
        isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1] or ()
    )
    if func in WAITING or masks or (func is aten._to_copy.default and to_host):
        NOTES.waits[f"{func} at {where()}"] += 1
    elif func is aten._to_copy.default and theirs:
        _note_upload(args[0])
    elif func in COPIES and theirs and len(args) > 1:
        if isinstance(args[0], DeviceTensor):
            _note_upload(args[1])
        else:
            NOTES.waits[f"{func} at {where()}"] += 1


def _note_upload(source: torch.Tensor) -> None:
    if source.data_ptr() not in PINNED and source.numel() > 0:
        NOTES.pageable[where()] += 1


class Pretending(TorchDispatchMode):
    """Sends to `compute` what makes device tensors from none: factories and copies."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        target = kwargs.get("device")
        if target is not None and torch.device(target).type == NAME:
            return compute(func, args, kwargs)
        if any(isinstance(a, DeviceTensor) for a in tree_flatten((args, kwargs))[0]):
            return compute(func, args, kwargs)
        return func(*args, **kwargs)


# --- autocast --------------------------------------------------------------------------------

# What CUDA's autocast lowers and raises, as far as the project uses it.
LOWERED = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d.input",
    "linear",
    "matmul",
    "mm",
    "bmm",
    "addmm",
    "baddbmm",
    "addbmm",
    "scaled_dot_product_attention",
]
RAISED = [
    "group_norm",
    "layer_norm",
    "softmax.int",
    "log_softmax.int",
    "exp",
    "log",
    "rsqrt",
    "cdist",
    "nll_loss",
    "nll_loss2d",
    "pow.Tensor_Scalar",
    "sum",
    "sum.dim_IntList",
    "cumsum",
    "prod",
    "norm.Scalar",
    "softplus",
    "reciprocal",
]
_AUTOCAST = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
_OTHERS = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
_OTHERS.fallback(torch.library.fallthrough_kernel)
_AUTOCAST_KEY = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)


def _casting(op: Any, lowers: bool) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(NAME) if lowers else torch.float32

        def cast(t: Any) -> Any:
            fits = isinstance(t, DeviceTensor) and t.is_floating_point()
            return t.to(dtype) if fits and t.dtype not in (dtype, torch.float64) else t

        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST_KEY):
            return op(*tree_map(cast, args), **tree_map(cast, kwargs))

    return call


for _names, _lowers in ((LOWERED, True), (RAISED, False)):
    for _name in _names:
        _base, _, _overload = _name.partition(".")
        _op = getattr(getattr(aten, _base), _overload or "default")
        _AUTOCAST.impl(_name, _casting(_op, _lowers))
