"""What several packages' tests share: running the command line as a user does, tiny models, and
StyleGAN2-ADA pickles built as the original program writes them.
"""

import collections
import io
import os
import pickle
import shutil
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from itertools import chain, groupby, islice
from typing import Any, NamedTuple

# Tiny networks gain nothing from threads, and the tests run in several processes. Read by torch
# when it is imported, here and in the programs that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
# By default Ray lets everything else on the machine go first, the other test processes too.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - that is its name

# Read when the command line's console is made, which some tests do while they are collected.
os.environ["COLUMNS"] = "200"

import pytest

from factory import cli


def pytest_configure(config: pytest.Config) -> None:
    """A separate Ray folder for each test process: in the usual one, they would share files."""
    folder = tempfile.mkdtemp(prefix="ray-")  # pytest's paths are too long for sockets
    os.mkdir(os.path.join(folder, "ray"))  # which ray.cluster_utils expects
    os.environ["RAY_TMPDIR"] = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the slow tests, folder by folder, to the beginning of each process's share of the tests.

    A process that has finished its share steals from the end of another's: quick tests.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    shares: list[list[pytest.Item]] = [[] for _ in range(processes)]
    slow = [item for item in items if item.get_closest_marker("slow")]
    for _, group in groupby(slow, key=lambda item: item.path.parent):
        min(shares, key=len).extend(group)
    quick = iter([item for item in items if not item.get_closest_marker("slow")])
    for share in shares:
        share.extend(islice(quick, max(0, -(-len(items) // processes) - len(share))))
    items[:] = [*chain.from_iterable(shares), *quick]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Undo what a test sets for torch."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def factory() -> Callable[..., Result]:
    """`factory("evaluate", "--demo")` -> exit code, standard output, standard error."""

    def run(*arguments: object) -> Result:
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", ["factory", *map(str, arguments)])
            try:
                cli.main()
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
        return Result(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))

    return run


@pytest.fixture(scope="session")
def tiny_segmenter() -> Callable:
    """`tiny_segmenter(classes, size, seed)` -> an untrained Segmenter that sees several classes."""

    def make(
        classes: Sequence[str], size: tuple[int, int] = (32, 32), seed: int = 0, **settings: Any
    ) -> Any:
        import torch

        from train_seg.config import SegmenterConfig
        from train_seg.network.network import build
        from train_seg.network.segmenter import Segmenter

        config = SegmenterConfig(encoder="resnet18", encoder_depth=3, **settings)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build(config, len(classes), size, pretrained=False)
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):  # else one class wins everywhere
                    assert module.running_mean is not None
                    assert module.running_var is not None
                    module.running_mean.normal_()
                    module.running_var.uniform_(0.1, 1)
        return Segmenter.create(network, config, list(classes), None, size, "0" * 64, {})

    return make


# --- StyleGAN2-ADA pickles -------------------------------------------------------------------


class EasyDict(dict):
    """The original's container of settings: attributes are items, __dict__ is not used."""

    __module__ = "dnnlib.util"


class Persistent:
    """An object that pickles itself with the text of its program, as the original's modules do."""

    def __init__(self, class_name: str, state: dict[str, Any], source: str):
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": source,
            "class_name": class_name,
            "state": state,
        }

    def __reduce__(self) -> tuple:
        return _reconstruct_persistent_obj, (self.meta,)


def _reconstruct_persistent_obj(meta: dict) -> None:
    raise AssertionError("a test unpickled what it made with the plain unpickler")


def _persistent(module: Any, source: str, **state: Any) -> Persistent:
    from generators.stylegan2.network import SynthesisBlock, SynthesisLayer
    from generators.stylegan2.resample import fir_filter

    children = {name: _persistent(child, source) for name, child in module._modules.items()}
    buffers = collections.OrderedDict(module._buffers)
    if isinstance(module, SynthesisLayer | SynthesisBlock):
        buffers.setdefault("resample_filter", fir_filter())
    kept = {"training": False, "_non_persistent_buffers_set": set(), "_backward_hooks": {}}
    state |= kept | {
        "_parameters": collections.OrderedDict(module._parameters),
        "_buffers": buffers,
        "_modules": collections.OrderedDict(children),
    }
    return Persistent(type(module).__name__, state, source)


AdaPickle = Callable[..., bytes]


@pytest.fixture
def ada_pickle(monkeypatch: pytest.MonkeyPatch) -> AdaPickle:
    """`(network, arguments, protocol, source, ..., **extra entries)` -> a snapshot's bytes.

    The network is at `entry`, or `alone`; `torch_save` are settings of torch.save, which then
    writes it.
    """
    persistence = types.ModuleType("torch_utils.persistence")
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore
    util = types.ModuleType("dnnlib.util")
    util.EasyDict = EasyDict  # type: ignore[attr-defined]
    for module in (persistence, util):
        monkeypatch.setitem(sys.modules, module.__name__, module)
        parent = module.__name__.split(".")[0]
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    monkeypatch.setattr(_reconstruct_persistent_obj, "__module__", persistence.__name__)

    def build(
        network: Any,
        arguments: dict[str, Any],
        protocol: int = 4,
        source: str = "",
        entry: str = "G_ema",
        alone: bool = False,
        torch_save: dict[str, Any] | None = None,
        **entries: Any,
    ) -> bytes:
        arguments = {k: EasyDict(v) if isinstance(v, dict) else v for k, v in arguments.items()}
        module = _persistent(network, source, _init_args=(), _init_kwargs=EasyDict(arguments))
        module.meta["class_name"] = "Generator"
        snapshot = {
            "training_set_kwargs": EasyDict(path="images.zip", max_size=8),
            "G": None,
            "D": None,
            "G_ema": None,
            "augment_pipe": None,
        }
        content = module if alone else snapshot | {entry: module} | entries
        if torch_save is None:
            return pickle.dumps(content, protocol)
        import torch

        buffer = io.BytesIO()
        torch.save(content, buffer, **torch_save)
        return buffer.getvalue()

    return build
