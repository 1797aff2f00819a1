"""Our own format of a StyleGAN2 generator."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from generators.stylegan2.config import NetworkConfig
from generators.stylegan2.network import StyleGAN2
from generators.stylegan2.storage import INFO_FILE, WEIGHTS_FILE, assemble, load, save


@pytest.fixture
def saved(tiny_config: NetworkConfig, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save(StyleGAN2(tiny_config), tmp_path / "generator")
    return tmp_path / "generator"


def test_what_is_saved_is_loaded(golden_network: Callable, tmp_path: Path) -> None:
    network = golden_network("net_c_cond3_map2_r32")
    save(network, tmp_path)
    found = load(tmp_path)
    assert found.config == network.config
    assert not found.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
    assert sorted(p.name for p in tmp_path.iterdir()) == [INFO_FILE, WEIGHTS_FILE]


def test_loading_imports_no_compiler_and_no_classifiers(saved: Path) -> None:
    load_it = "import sys; from pathlib import Path; from generators.stylegan2 import model; "
    load_it += f"model.storage.load(Path({str(saved)!r}))"
    seen = "print(*{'torch._dynamo', 'torchvision', 'sympy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"{load_it}; {seen}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_half_precision_weights_become_float32(tiny_config: NetworkConfig) -> None:
    network = StyleGAN2(tiny_config)
    halves = {name: t.half() for name, t in network.state_dict().items()}
    found = assemble(tiny_config, halves, "halves")
    assert {t.dtype for t in found.state_dict().values()} == {torch.float32}


def test_an_empty_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no StyleGAN2 generator at .*\.pkl"):
        load(tmp_path)


def test_a_damaged_description_is_named(saved: Path) -> None:
    info = json.loads((saved / INFO_FILE).read_text())
    for changed in ({"format_version": 2}, {"network": {"resolution": 15}}, {"more": 1}):
        (saved / INFO_FILE).write_text(json.dumps(info | changed))
        with pytest.raises(ValueError, match=r"generator\.json is damaged \('") as caught:
            load(saved)
        assert "\n" not in str(caught.value)


def test_damaged_weights_are_named(saved: Path) -> None:
    weights = saved / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"generator\.safetensors is damaged"):
        load(saved)


def test_weights_of_a_different_network_are_refused(saved: Path) -> None:
    info = json.loads((saved / INFO_FILE).read_text())
    info["network"]["mapping_layers"] = 3
    (saved / INFO_FILE).write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"found no tensor mapping\.fc2\.weight \(2 are missing\)"):
        load(saved)
