"""Hostile pickles are refused in one line, and nothing is executed, imported or allocated."""

import collections
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from generators.files.inert import GLOBALS, MAX_OPCODES, StoredTensor, guarded, materialise
from generators.files.machine import Machine


def storage_blob(tensor: torch.Tensor) -> bytes:
    """The bytes that torch writes for a tensor's storage inside a pickle."""
    buffer = io.BytesIO()
    storage = torch.storage.TypedStorage(
        wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True
    )
    torch.save(storage, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def read_pickle(content: bytes) -> Any:
    """The values in a pickle, with the names of StyleGAN2-ADA's pickles."""
    return guarded(lambda: Machine(GLOBALS, MAX_OPCODES).run(io.BytesIO(content)))


BLOB = storage_blob(torch.arange(6.0))


def refused(content: bytes) -> str:
    with pytest.raises(ValueError, match=r"refused|damaged") as caught:
        read_pickle(content)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    return message


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_is_refused_in_every_protocol(tmp_path: Path, evil: object, protocol: int) -> None:
    assert "refused" in refused(pickle.dumps({"G_ema": evil}, protocol))
    assert not (tmp_path / "ran").exists()


def proto4(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def test_the_list_of_names_is_exactly_what_such_pickles_use() -> None:
    assert sorted(".".join(name) for name in GLOBALS) == [
        "__builtin__.set",
        "_codecs.encode",
        "builtins.set",
        "collections.OrderedDict",
        "dnnlib.util.EasyDict",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray.scalar",
        "numpy.dtype",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor_v2",
        "torch.storage._load_from_bytes",
        "torch_utils.persistence._reconstruct_persistent_obj",
    ]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("collections", "OrderedDict.__init_subclass__"),
        ("collections.abc", "sys.modules"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch.storage", "io.BytesIO"),
        ("torch_utils.persistence", "_reconstruct_persistent_obj.function"),
        ("", "collections.OrderedDict"),
        ("numpy", "load"),
    ],
)
def test_only_the_names_of_the_list_are_known(module: str, name: str) -> None:
    by_stack = proto4(stack_global(module, name) + b")R")
    assert f"{module}.{name}" in refused(by_stack)
    by_line = b"\x80\x03c" + f"{module}\n{name}\n".encode() + b")R."
    assert f"{module}.{name}" in refused(by_line)


@pytest.mark.parametrize(
    ("opcode", "stream"),
    [
        ("EXT1", b"\x80\x02\x82\x01."),
        ("INST", b"(iposix\nsystem\n."),
        ("OBJ", b"\x80\x02(cnumpy\ndtype\no."),
        ("PERSID", b"Px\n."),
        ("BINPERSID", b"\x80\x04" + text("storage") + b"Q."),
        ("LONG4", b"\x80\x02\x8b\x04\x00\x00\x00\x00\x00\x00\x01."),
        ("NEXT_BUFFER", b"\x80\x05\x97."),
        ("BYTEARRAY8", b"\x80\x05\x96" + struct.pack("<Q", 1) + b"x."),
        ("NEWOBJ_EX", proto4(stack_global("collections", "OrderedDict") + b")}\x92")),
    ],
)
def test_opcodes_that_such_pickles_do_not_use(opcode: str, stream: bytes) -> None:
    assert f"the opcode {opcode}," in refused(stream)


@pytest.mark.parametrize("name", sorted(GLOBALS))
def test_the_functions_behind_names_cannot_be_altered(name: tuple[str, str]) -> None:
    for state in ({"function": 1, "__setstate__": 1}, (None, {"function": 1, "__call__": 2})):
        content = proto4(stack_global(*name) + pickle.dumps(state, 4)[2:-1] + b"b")
        before = dict(vars(type(GLOBALS[name])))
        refused(content)
        assert dict(vars(type(GLOBALS[name]))) == before


class TestDeclaredSizes:
    """Large sizes that a small file declares are never allocated."""

    def test_bytes_beyond_the_end(self) -> None:
        for opcode in (b"\x8e", b"\x8d", b"\x8b"):
            refused(b"\x80\x04" + opcode + struct.pack("<Q", 2**62) + b"x.")
        # The size of a frame is ignored.
        assert read_pickle(b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.") is None

    def test_a_far_memo_index_takes_no_memory(self) -> None:
        far = struct.pack("<I", 2**32 - 1)
        assert read_pickle(b"\x80\x03Nr" + far + b"j" + far + b"\x86.") == (None, None)

    def test_opcodes_without_end(self) -> None:
        assert "opcodes" in refused(b"\x80\x04" + b"]" * 1_100_000 + b".")

    @pytest.mark.parametrize("declared", [7, 5, 2**40, -1, 2**62])
    def test_a_storage_whose_size_is_not_that_of_its_data(self, declared: int) -> None:
        honest = b"K\x06Nt"
        assert BLOB.count(honest) == 1
        integer = pickle.dumps(declared, 2)[2:-1]
        for blob in (
            BLOB.replace(honest, integer + b"Nt"),
            BLOB.replace(struct.pack("<q", 6), struct.pack("<q", declared)),
            BLOB.replace(honest, integer + b"Nt").replace(
                struct.pack("<q", 6), struct.pack("<q", declared)
            ),
        ):
            with pytest.raises(ValueError, match=r"a storage of|damaged"):
                materialise(StoredTensor(blob, 0, (6,), (1,)))

    @pytest.mark.parametrize(
        ("offset", "size", "stride"),
        [
            (1, (6,), (1,)),
            (0, (7,), (1,)),
            (0, (2, 3), (4, 1)),
            (2**62, (1,), (1,)),
            (0, (2,), (2**62,)),
            (0, (2**40,), (0,)),
            (0, (2**40, 2**40), (0, 0)),
            (0, (2, 3), (1,)),
        ],
    )
    def test_views_beyond_the_storage(self, offset: int, size: tuple, stride: tuple) -> None:
        with pytest.raises(ValueError, match=r"refused|damaged"):
            materialise(StoredTensor(BLOB, offset, size, stride))

    @pytest.mark.parametrize("numbers", [(-1, (1,), (1,)), (0, (-1,), (1,)), (0, (1,), (True,))])
    def test_numbers_out_of_range(self, numbers: tuple) -> None:
        arguments = pickle.dumps((BLOB, *numbers, False, None), 4)[2:-1]
        rebuild = stack_global("torch._utils", "_rebuild_tensor_v2")
        assert "a tensor without a proper storage" in refused(proto4(rebuild + arguments + b"R"))


def doublings(n: int) -> bytes:
    """A pair of the same pair of the same pair ...: 2^n parts in 4n bytes."""
    return b")\x94" + b"".join(b"h" + bytes([i]) + b"\x86\x94" for i in range(n))


TUPLES = doublings(60)


class TestLongWork:
    """Small files that would keep Python's own unpickler busy for years, or fill the memory."""

    @pytest.mark.parametrize(
        "content",
        [
            b"}" + TUPLES + b"Ns.",  # to hash the key takes 2^60 steps
            b"}(" + TUPLES + b"Nu.",
            b"}(" + b"".join(pickle.dumps(i * (2**61 - 1), 4)[2:-1] + b"N" for i in (1, 2)) + b"u.",
        ],
    )
    def test_only_text_is_a_key(self, content: bytes) -> None:
        assert "a key that is a" in refused(b"\x80\x04" + content)

    def test_sets_hash_nothing(self) -> None:
        found = read_pickle(b"\x80\x04\x8f(" + TUPLES + b"\x90.")
        assert len(found) == 1
        made = stack_global("builtins", "set") + b"](" + TUPLES + b"e\x85R."
        assert len(read_pickle(b"\x80\x04" + made)) == 1

    def test_a_long_list_is_never_copied(self) -> None:
        name = stack_global("builtins", "set") + b"\x94"
        calls = b"h\x00h\x01\x85R" * 3
        first, *more = read_pickle(proto4(name + b"](NNNe\x94(" + calls + b"t"))
        assert all(found is first for found in more)
        for module, dictionary in (("collections", "OrderedDict"), ("dnnlib.util", "EasyDict")):
            made = stack_global(module, dictionary) + b"}\x85R"
            assert "damaged" in refused(proto4(made))

    @pytest.mark.parametrize("size", [b"\x01" * 50, [1] * 50, (1,) * 50, "1", {"1": 1}])
    def test_a_tensor_has_few_dimensions(self, size: Any) -> None:
        arguments = pickle.dumps((BLOB, 0, size, (1,), False, None), 4)[2:-1]
        rebuild = stack_global("torch._utils", "_rebuild_tensor_v2")
        assert "without a proper size" in refused(proto4(rebuild + arguments + b"R"))

    def test_names_are_text_before_they_are_printed(self) -> None:
        assert "a name that is not text" in refused(proto4(TUPLES + b"\x8c\x01x\x93"))
        assert refused(proto4(stack_global("a\nb", "\x1b[2J"))).isprintable()

    def test_numbers_are_checked_before_they_are_printed_or_compared(self) -> None:
        nested = doublings(30)  # printed or compared, 2^30 parts
        assert BLOB.count(b"K\x06Nt") == 1
        blob = BLOB.replace(b"K\x06Nt", nested + b"Nt")
        with pytest.raises(ValueError, match="without key or size"):
            materialise(StoredTensor(blob, 0, (6,), (1,)))

    def test_the_description_of_a_storage_is_short(self) -> None:
        position = BLOB.index(b"\x80\x02(X\x07\x00\x00\x00storage")
        blob = BLOB[:position] + b"\x80\x02" + b"]" * 1000 + BLOB[position + 2 :]
        with pytest.raises(ValueError, match="more than 200 opcodes"):
            materialise(StoredTensor(blob, 0, (6,), (1,)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"]K\x01K\x02s.", "entries for a list"),
        (b"}K\x01a.", "items for a dict"),
        (b"K\x01)R.", "a call of a int"),
        (b"]}b.", "attributes of a list"),
        (b"}]Nab.", "attributes of a dict"),
        (b"N\x85\x86.", "damaged"),
        (b"R.", "damaged"),
        (b"t.", "damaged"),
        (b"h\x05.", "damaged"),
        (b".", "damaged"),
        (b"N", "damaged"),
    ],
)
def test_opcodes_on_values_of_the_wrong_type(content: bytes, message: str) -> None:
    assert message in refused(b"\x80\x04" + content)


class TestStorages:
    @pytest.mark.parametrize(
        "dtype", ["float32", "float64", "float16", "bfloat16", "int64", "int32", "bool"]
    )
    def test_equals_what_torch_reads(self, dtype: str) -> None:
        tensor = torch.arange(12).to(getattr(torch, dtype))
        blob = storage_blob(tensor)
        ours = materialise(StoredTensor(blob, 1, (2, 3), (5, 2)))
        storage = torch.load(io.BytesIO(blob), weights_only=True)
        theirs = torch.empty(0, dtype=ours.dtype).set_(storage, 1, (2, 3), (5, 2))
        assert ours.dtype == tensor.dtype
        assert torch.equal(ours, theirs)

    def test_scalars_and_empty_tensors(self) -> None:
        assert materialise(StoredTensor(BLOB, 4, (), ())) == 4
        empty = storage_blob(torch.empty(0))
        assert materialise(StoredTensor(empty, 0, (0, 3), (3, 1))).shape == (0, 3)

    def test_a_call_in_a_storage_is_refused(self, tmp_path: Path, evil: object) -> None:
        call = pickle.dumps(evil, 2)
        position = BLOB.index(b"\x80\x02(X\x07\x00\x00\x00storage")
        for blob in (call, BLOB[:position] + call, BLOB[:15] + call + BLOB[15:]):
            with pytest.raises(ValueError, match=r"refused.*system"):
                materialise(StoredTensor(blob, 0, (6,), (1,)))
        assert not (tmp_path / "ran").exists()

    def test_other_formats_are_refused(self) -> None:
        zipped = io.BytesIO()
        torch.save(torch.arange(6.0), zipped)
        # For a description of this kind, torch.load opens the source file of a class.
        module = BLOB.replace(b"X\x07\x00\x00\x00storage", b"X\x06\x00\x00\x00module")
        for blob in (zipped.getvalue(), module, b"", BLOB.replace(b"\x88X\n", b"\x89X\n")):
            with pytest.raises(ValueError, match=r"refused|damaged"):
                materialise(StoredTensor(blob, 0, (6,), (1,)))

    def test_every_truncation_is_refused(self) -> None:
        for length in range(len(BLOB)):
            with pytest.raises(ValueError, match=r"refused|damaged"):
                materialise(StoredTensor(BLOB[:length], 0, (6,), (1,)))


def test_plain_values_come_through() -> None:
    values: dict[str, Any] = {
        "ordered": collections.OrderedDict(a=1.5),
        "numbers": [np.float32(0.5), np.int64(-3), np.bool_(True), np.float64(2.0)],
        "nested": ({"x": None}, b"bytes", 2**40),
    }
    for protocol in (2, 3, 4, 5):
        found = read_pickle(pickle.dumps(values, protocol))
        if protocol == 2:  # which writes bytes as text
            dictionary, latin1, number = found["nested"]
            found["nested"] = (dictionary, latin1.encode(), number)
        assert found == values
        assert sorted(read_pickle(pickle.dumps({1, 2}, protocol))) == [1, 2]


def test_bytes_in_protocol_2_are_not_copied_by_calls() -> None:
    def text2(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()

    encode, long, latin1 = b"c_codecs\nencode\n", text2("\xff\x01x") + b"q\x01", text2("latin1")
    calls = b"(" + (encode + b"h\x01" + latin1 + b"\x86R") * 3 + b"t."
    first, *more = read_pickle(b"\x80\x02" + long + calls)
    assert first.encode() == b"\xff\x01x"
    assert all(found.text is first.text for found in more)
    for arguments in (b"h\x01h\x01", b"]" + latin1):
        content = b"\x80\x02" + long + encode + arguments + b"\x86R."
        assert "bytes in an unknown encoding" in refused(content)


def test_the_empty_state_that_old_versions_of_python_write() -> None:
    made = stack_global("dnnlib.util", "EasyDict") + b")\x81"
    assert read_pickle(proto4(made + b"}b")) == {}
    assert "attributes" in refused(proto4(made + b"}" + text("keys") + b"Nsb"))
