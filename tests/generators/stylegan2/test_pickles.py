"""StyleGAN2-ADA snapshots are read exactly, and are harmless whatever they contain."""

import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from generators.files.inert import PersistentObject
from generators.files.torch_file import TorchFile
from generators.stylegan2 import pickles
from generators.stylegan2.config import NetworkConfig
from generators.stylegan2.network import StyleGAN2
from generators.stylegan2.pickles import network_config, read_generator
from generators.stylegan2.resample import fir_filter

CONDITIONAL = "net_c_cond3_map2_r32"


@pytest.fixture
def snapshot(
    ada_pickle: Callable[..., bytes], golden_network: Callable, golden_arguments: Callable
) -> Callable[..., bytes]:
    """`(**settings of ada_pickle)` -> the bytes of a snapshot of a golden network."""
    network, arguments = golden_network(CONDITIONAL), golden_arguments(CONDITIONAL)

    def build(network: StyleGAN2 = network, arguments: Any = arguments, **settings: Any) -> bytes:
        return ada_pickle(network, arguments, **settings)

    return build


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("name", ["net_b_map2_r32", CONDITIONAL, "net_d_clamp1p5_r32"])
def test_a_snapshot_gives_its_network(
    name: str,
    protocol: int,
    ada_pickle: Callable[..., bytes],
    golden_network: Callable,
    golden_arguments: Callable,
    tmp_path: Path,
) -> None:
    expected = golden_network(name)
    content = ada_pickle(
        expected, golden_arguments(name), protocol, lr=np.float64(0.002), n=np.int64(3)
    )
    found = read_generator(write(tmp_path / "net.pkl", content))
    assert found.config == expected.config
    assert list(found.state_dict()) == list(expected.state_dict())
    for key, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], tensor)
    assert found.state_dict()["mapping.w_avg"].abs().sum() > 0


def test_the_program_text_is_never_run(snapshot: Callable, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    source = f"open({str(marker)!r}, 'w')\nraise SystemExit"
    read_generator(write(tmp_path / "net.pkl", snapshot(source=source)))
    assert not marker.exists()


def test_unneeded_parts_of_the_file_are_not_read(
    snapshot: Callable, evil: object, tmp_path: Path
) -> None:
    class Blob:  # a storage in the discriminator that would run a command
        def __reduce__(self) -> tuple:
            content = pickle.dumps(evil, 2)
            return torch.storage._load_from_bytes, (content,)

    read_generator(write(tmp_path / "net.pkl", snapshot(D=Blob())))
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def hostile_files(tmp_path: Path, snapshot: Callable[..., bytes], evil: object) -> list[Path]:
    """Pickles that must be refused; running any would leave the file `ran` in `tmp_path`."""
    good = snapshot()
    storage = pickle.dumps(evil, 2)
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how every storage begins
    assert good.count(magic) > 50
    contents = {f"outer{p}": pickle.dumps({"G_ema": evil}, p) for p in range(6)}
    contents |= {f"entry{p}": snapshot(protocol=p, D=evil) for p in (2, 3, 4, 5)}
    contents |= {
        "storage": good.replace(magic, (storage + magic)[: len(magic)]),
        "storage_call": good.replace(
            magic, b"\x80\x02cos\nsystem\nK1R.".ljust(len(magic), b".")[: len(magic)]
        ),
        "reconstruct": good.replace(b"_reconstruct_persistent_obj", b"_reconstruct_persistent_foo"),
        "module": good.replace(b"torch_utils.persistence", b"torch_utils.pewsistence"),
        "zip": zip_file(),
        "empty": b"",
        "text": b"<html>404</html>",
    }
    contents |= {f"cut{n}": good[:n] for n in range(0, len(good), len(good) // 40)}
    return [write(tmp_path / f"{name}.pkl", content) for name, content in contents.items()]


def zip_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"G_ema": torch.zeros(3)}, buffer)
    return buffer.getvalue()


def test_hostile_files_are_refused_in_one_line(hostile_files: list[Path], tmp_path: Path) -> None:
    for file in hostile_files:
        with pytest.raises(ValueError, match=r"\.pkl: ") as caught:
            read_generator(file)
        assert "\n" not in str(caught.value), file
        assert len(str(caught.value)) < 400, file
    assert not (tmp_path / "ran").exists()


AUDITED = """
import sys
from pathlib import Path
from generators.files.torch_file import TorchFile
from generators.stylegan2.pickles import read_generator

good, *hostile = map(Path, sys.argv[1:])
read_generator(good)  # from here on, all that the reader itself needs is imported
reading, events, opened, refused = None, [], set(), 0

def hook(event, arguments):
    if reading is None or event == "builtins.id":
        return
    if event == "open" and arguments[0] == str(reading):
        opened.add(reading)
    elif event != "mmap.__new__":
        events.append((reading.name, event, str(arguments)[:200]))

sys.addaudithook(hook)
for reading in hostile:
    try:
        read_generator(reading)
    except ValueError:
        refused += 1
    try:
        TorchFile(reading)  # which reads unknown objects as data
    except ValueError:
        pass
reading = None
print(len(opened), refused, events)
"""


@pytest.mark.slow
def test_nothing_is_executed_imported_or_opened(
    snapshot: Callable, hostile_files: list[Path], tmp_path: Path
) -> None:
    good = write(tmp_path / "good.pkl", snapshot())
    harmless = write(tmp_path / "source.pkl", snapshot(source=f"open({str(tmp_path / 'ran')!r})"))
    command = [sys.executable, "-c", AUDITED, *map(str, [good, *hostile_files, harmless])]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == f"{len(hostile_files) + 1} {len(hostile_files)} []"
    assert not (tmp_path / "ran").exists()


class TestNetworkConfig:
    def test_arguments_not_given_have_the_defaults_of_the_original(self) -> None:
        config = network_config({"z_dim": 512, "c_dim": 0, "w_dim": 512, "img_resolution": 256})
        assert config == NetworkConfig(
            resolution=256, channel_base=32768, channel_max=512, mapping_layers=8
        )

    def test_a_published_network(self) -> None:
        config = network_config(
            {
                "z_dim": 512,
                "w_dim": 512,
                "c_dim": 0,
                "img_resolution": 1024,
                "img_channels": 3,
                "mapping_kwargs": {"num_layers": 8},
                "synthesis_kwargs": {
                    "channel_base": 32768,
                    "channel_max": 512,
                    "num_fp16_res": 4,
                    "conv_clamp": 256,
                    "fp16_channels_last": True,
                },
            }
        )
        assert (config.num_ws, config.float16_from, config.conv_clamp) == (18, 128, 256)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"img_resolution": 48}, "'resolution'.*power of two"),
            ({"img_resolution": 2**40}, "'resolution'"),
            ({"img_channels": 1}, "different img_channels: expected 3"),
            ({"mapping_kwargs": {"num_layers": 10**9}}, "'mapping_layers'"),
            ({"mapping_kwargs": {"activation": "relu"}}, "different activation: expected lrelu"),
            ({"mapping_kwargs": 3}, "mapping_kwargs that are not arguments"),
            ({"synthesis_kwargs": {"filter_size": 6}}, "filter_size, which is unknown"),
            ({"synthesis_kwargs": {"architecture": "mixer"}}, "'architecture'"),
            ({"synthesis_kwargs": {"channel_base": {}}}, "'channel_base'"),
            ({(1,): 2}, "a tuple, which is unknown"),
        ],
    )
    def test_other_networks_are_refused(self, arguments: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            network_config({"img_resolution": 64} | arguments)
        assert "\n" not in str(caught.value)


class TestWrongContent:
    """Files that can be unpickled but have the wrong content."""

    @pytest.fixture
    def read(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, snapshot: Callable) -> Callable:
        file = write(tmp_path / "net.pkl", snapshot())

        def read(change: Callable[[PersistentObject], Any]) -> str:
            class Changed(TorchFile):
                def __init__(self, *arguments: Any):
                    super().__init__(*arguments)
                    change(self.value["G_ema"])

            monkeypatch.setattr(pickles, "TorchFile", Changed)
            with pytest.raises(ValueError, match=r"net\.pkl: ") as caught:
                read_generator(file)
            assert "\n" not in str(caught.value)
            return str(caught.value)

        return read

    def test_a_missing_tensor(self, read: Callable) -> None:
        message = read(lambda g: g.state["_modules"]["mapping"].state["_buffers"].clear())
        assert "found no tensor mapping.w_avg (1 are missing)" in message

    def test_an_unknown_tensor(self, read: Callable) -> None:
        def change(g: PersistentObject) -> None:
            mapping = g.state["_modules"]["mapping"].state
            mapping["_buffers"]["other"] = mapping["_buffers"]["w_avg"]

        assert "1 unknown tensors, such as mapping.other" in read(change)

    def test_a_tensor_of_a_different_shape(self, read: Callable) -> None:
        def change(g: PersistentObject) -> None:
            buffers = g.state["_modules"]["mapping"].state["_buffers"]
            buffers["w_avg"] = buffers["w_avg"]._replace(size=(8, 8), stride=(8, 1))

        assert "mapping.w_avg is [8, 8], expected [64]" in read(change)

    def test_a_module_inside_itself(self, read: Callable) -> None:
        def change(g: PersistentObject) -> None:
            g.state["_modules"]["mapping"].state["_modules"]["again"] = g

        assert "twice or too deep" in read(change)

    def test_modules_that_share_a_long_dictionary(self, read: Callable) -> None:
        def change(g: PersistentObject) -> None:
            long = dict.fromkeys(map(str, range(1000)))
            children = {
                str(i): PersistentObject("", {"_parameters": long, "_buffers": {}, "_modules": {}})
                for i in range(100)
            }
            g.state["_modules"]["mapping"].state["_modules"] |= children

        assert "more than 10000 parts" in read(change)

    def test_names_are_printed_on_one_line(self, read: Callable) -> None:
        def change(g: PersistentObject) -> None:
            g.state["_modules"]["mapping"].state["_buffers"]["a\n\x1b[2J"] = 1

        assert r"mapping.a\n\x1b[2J is not a valid entry of _buffers" in read(change)

    def test_unexpected_filters(self, read: Callable) -> None:
        def change(g: PersistentObject) -> None:
            buffers = g.state["_modules"]["mapping"].state["_buffers"]
            for i in range(3):
                buffers[f"{i}resample_filter"] = buffers["w_avg"]

        assert "3 unknown tensors, such as mapping.0resample_filter" in read(change)

    def test_a_filter_of_a_different_shape(self, read: Callable) -> None:
        def change(g: PersistentObject) -> None:
            buffers = g.state["_modules"]["synthesis"].state["_modules"]["b8"].state["_buffers"]
            buffers["resample_filter"] = buffers["resample_filter"]._replace(size=(16,))

        assert "b8.resample_filter is [16], expected [4, 4]" in read(change)

    def test_a_file_too_large_is_not_read(self, tmp_path: Path) -> None:
        with (tmp_path / "x.pkl").open("wb") as file:
            file.truncate(2**33)
        with pytest.raises(ValueError, match=r"x\.pkl has 8589934592 bytes: expected at most"):
            read_generator(tmp_path / "x.pkl")

    def test_one_storage_for_tensors_larger_than_the_file(self, read: Callable) -> None:
        def change(g: PersistentObject) -> None:
            wide = 65536
            g.state["_init_kwargs"]["z_dim"] = wide
            first = g.state["_modules"]["mapping"].state["_modules"]["fc0"].state["_parameters"]
            first["weight"] = first["weight"]._replace(size=(64, wide + 64), stride=(0, 0))

        assert "larger than the file" in read(change)

    def test_no_network(self, tmp_path: Path) -> None:
        for content in ({"G": 1}, [1], {"G_ema": {}}):
            with pytest.raises(ValueError, match="no network G_ema"):
                read_generator(write(tmp_path / "x.pkl", pickle.dumps(content, 4)))

    def test_other_filters_and_infinite_weights(
        self, snapshot: Callable, golden_network: Callable, tmp_path: Path
    ) -> None:
        network = golden_network(CONDITIONAL)
        network.synthesis.b8.register_buffer("resample_filter", 2 * fir_filter())
        with pytest.raises(ValueError, match=r"b8\.resample_filter is not the filter"):
            read_generator(write(tmp_path / "x.pkl", snapshot(network=network)))
        network = golden_network(CONDITIONAL)
        network.mapping.w_avg[3] = float("nan")
        with pytest.raises(ValueError, match=r"w_avg is torch\.float32, expected finite"):
            read_generator(write(tmp_path / "x.pkl", snapshot(network=network)))

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            read_generator(tmp_path / "none.pkl")
