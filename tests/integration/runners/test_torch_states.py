"""State dicts are read as what they hold, however they were saved; whatever else is in the file is refused and never runs."""

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import networks, torch_folders
from fixtures.torch_folders import Calls, Reaching, rewritten, with_record
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.plugins.runners.torch import TorchRunner, states

pytestmark = pytest.mark.filterwarnings("ignore")

KINDS = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn,
]  # fmt: skip
STATE = OrderedDict((str(kind).removeprefix("torch."), torch.arange(6).reshape(2, 3).to(kind)) for kind in KINDS)
STATE["a scalar"], STATE["nothing"] = torch.tensor(3.5), torch.empty(0, 4)
STATE["a view"] = torch.arange(12.0).reshape(3, 4).t()[1:]
FLOATS = {name: torch.randn(3, 4) for name in ("a.weight", "b.weight")}
FORMS = {
    "saved": networks.saved,
    "legacy": lambda tensors: networks.saved(tensors, _use_new_zipfile_serialization=False),
}


def read(data, tmp_path, name="weights.pt"):
    path = tmp_path / name
    path.write_bytes(data)
    return states.read(path, tmp_path).tensors


def refused(data, tmp_path):
    with pytest.raises(CannotLoad) as refusal:
        read(data, tmp_path)
    return refusal.value


def numbers(tensor):
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist())


def same(found, expected):
    assert list(found) == list(expected)
    for name, one in expected.items():
        assert found[name].dtype is one.dtype
        assert found[name].shape == one.shape
        assert numbers(found[name]) == numbers(one)


# ---- what is read


@pytest.mark.parametrize("form", FORMS)
def test_every_datatype_is_read_as_it_was_saved(form, tmp_path):
    tensors = {name: one for name, one in STATE.items() if form == "saved" or "float8" not in name}  # the old form has no such
    same(read(FORMS[form](tensors), tmp_path), tensors)


def test_safetensors_are_read_as_they_were_saved(tmp_path):
    parts, header = b"", {}
    names = {"complex64": "C64", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "bfloat16": "BF16", "uint8": "U8"}
    for name, one in STATE.items():
        kind = str(one.dtype).removeprefix("torch.")
        told = names.get(kind) or kind.replace("float", "F").replace("int", "I")
        header[name] = {"dtype": told, "shape": list(one.shape), "data_offsets": [len(parts), len(parts) + len(numbers(one))]}
        parts += numbers(one)
    found = read(packed(header, parts), tmp_path)
    same({name: found[name] for name in STATE}, STATE)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict"])
def test_the_one_state_dict_in_a_checkpoint_is_taken(key, tmp_path):
    network = networks.dense()
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    data = networks.saved({"epoch": 3, key: network.state_dict(), "optimizer": optimizer.state_dict()})
    same(read(data, tmp_path), network.state_dict())


def test_the_one_file_of_weights_is_found_wherever_it_is(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "pytorch_model.BIN").write_bytes(b"")
    (tmp_path / "model.py").write_text("")
    assert states.find(tmp_path).name == "pytorch_model.BIN"
    (tmp_path / "more.pt").write_bytes(b"")
    with pytest.raises(CannotLoad, match=r"deep/pytorch_model\.BIN, more\.pt"):
        states.find(tmp_path)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("model.py", "weights.pt"), "torch-state"),
        (("modelkeep.toml", "net/weights.safetensors"), "torch-state"),
        (("model.py",), None),
        (("weights.pt",), None),
        (("net/model.py", "weights.pt"), None),
    ],
)
def test_a_folder_is_known_by_python_beside_weights(names, found):
    assert TorchRunner.recognise_files(names) == found


# ---- what is refused


@pytest.mark.parametrize("form", FORMS)
def test_a_pickle_that_calls_something_is_refused_and_does_not_call(form, tmp_path):
    written = tmp_path / "written"
    data = FORMS[form]({"w": torch.ones(2), "x": Calls(written.touch)})
    error = refused(data, tmp_path)
    assert error.reason is Reason.UNRECOGNISED
    assert not written.exists()
    torch.load(io.BytesIO(data), weights_only=False)
    assert written.exists(), "the control does not show the attack"


@pytest.mark.parametrize("name", ["weights.pt", "weights.bin", "weights.safetensors"])
def test_a_plain_pickle_is_refused_under_any_name(name, tmp_path):
    written = tmp_path / "written"
    data = pickle.dumps({"w": Calls(written.touch)})
    with pytest.raises(CannotLoad):
        read(data, tmp_path, name)
    assert not written.exists()
    pickle.loads(data)
    assert written.exists(), "the control does not show the attack"


def test_a_storage_that_is_shorter_than_said_is_refused(tmp_path):
    data = networks.saved({"w": torch.ones(4096)})
    short = with_record(data, "data/0", bytes(16))
    assert refused(short, tmp_path).reason is Reason.LOAD_FAILED
    longer = with_record(data, "data/0", bytes(16400))
    assert refused(longer, tmp_path).reason is Reason.LOAD_FAILED
    missing = rewritten(data, lambda name, held: None if name == "data/0" else held)
    assert refused(missing, tmp_path).reason is Reason.LOAD_FAILED


def test_a_storage_that_is_shorter_than_said_is_refused_in_the_old_form(tmp_path):
    data = networks.saved({"w": torch.ones(4096)}, _use_new_zipfile_serialization=False)
    counts = struct.pack("<Q", 4096)  # before the numbers themselves
    assert data.count(counts) == 1
    for other in (16, 1 << 20, 1 << 62):
        assert refused(data.replace(counts, struct.pack("<Q", other)), tmp_path).reason is Reason.LOAD_FAILED


def test_a_record_that_is_marked_as_a_folder_is_refused(tmp_path):
    data = bytearray(networks.saved({"w": torch.arange(4096.0)}))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = next(one for one in archive.namelist() if one.endswith("data/0")).encode()
    data[data.rindex(name) - 8] |= 0x10
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None, "the control: no checksum says that anything is wrong"
    assert "marked as a folder" in refused(bytes(data), tmp_path).detail
    # torch gives back memory that nobody wrote: kept, so that not each load finds what was there before by chance
    read_by_torch = [torch.load(io.BytesIO(bytes(data)), weights_only=True)["w"] for _again in range(50)]
    assert not all(torch.equal(one, torch.arange(4096.0)) for one in read_by_torch), "the control does not show the attack"


def test_numbers_of_another_byte_order_are_turned_round(tmp_path):
    turned = np.arange(4096, dtype=">f4").tobytes()
    data = with_record(with_record(networks.saved({"w": torch.ones(4096)}), "data/0", turned), "byteorder", b"big")
    assert read(data, tmp_path)["w"].tolist() == list(range(4096))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(Reaching((5,), (1,)), id="longer"),
        pytest.param(Reaching((2, 2), (3, 1)), id="strided"),
        pytest.param(Reaching((2,), (1,), 3), id="moved"),
        pytest.param(Reaching((1 << 60,), (1,)), id="huge"),
        pytest.param(Reaching((2,), (-1,), 1), id="backwards"),
    ],
)
def test_a_tensor_that_reaches_beyond_its_storage_is_refused(form, tensor, tmp_path):
    assert refused(FORMS[form]({"w": tensor}), tmp_path).reason in {Reason.LOAD_FAILED, Reason.UNRECOGNISED}


@pytest.mark.parametrize("form", FORMS)
def test_a_tensor_within_its_storage_is_read(form, tmp_path):
    assert read(FORMS[form]({"w": Reaching((2, 2), (2, 1))}), tmp_path)["w"].tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        ({"w": torch.ones(3).to_sparse()}, "no plain tensor"),
        ({"w": torch.empty(1 << 50, device="meta")}, "no plain tensor"),
        ({"w": torch.ones(3), "epoch": 3}, "more than tensors in it: epoch"),
        ({"a": {"w": torch.ones(3)}, "b": {"w": torch.ones(3)}}, "several state dicts: a, b"),
        ({}, "empty"),
        (torch.ones(3), "holds a Tensor"),
        ([torch.ones(3)], "holds a list"),
        (networks.dense(), "pickled Sequential"),
    ],
)
def test_what_is_no_state_dict_is_named(thing, words, tmp_path):
    assert words in refused(networks.saved(thing), tmp_path).detail


def test_torchscript_and_programs_are_told_to_go_alone(tmp_path):
    for data in (networks.scripted(networks.dense()), networks.exported(networks.dense(), torch.ones(2, 4))):
        assert "push this file alone" in refused(data, tmp_path).detail


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        for at in range(5):
            archive.writestr(f"a/data/{at}", bytes(64 << 20))
    assert len(into.getvalue()) < 1 << 20
    assert "320 MB" in refused(into.getvalue(), tmp_path).detail


def test_records_of_one_name_are_refused(tmp_path):
    into = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(networks.saved({"w": torch.ones(4)}))) as archive, zipfile.ZipFile(into, "w") as out:
        for one in archive.infolist():
            for _ in range(2):
                out.writestr(one.filename, archive.read(one))
    assert "each once" in refused(into.getvalue(), tmp_path).detail


def packed(header, numbers=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def said(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "numbers", "words"),
    [
        ({"w": said([4], 0, 16)}, bytes(12), "goes up to"),
        ({"w": said([5], 0, 16)}, bytes(16), "takes 20 bytes; it has 16"),
        ({"w": said([1 << 62, 1 << 62], 0, 16)}, bytes(16), "has the shape"),
        ({"w": said([4], 0, 16), "v": said([4], 0, 16)}, bytes(16), "does not begin"),
        ({"w": said([2], 0, 8), "v": said([2], 12, 20)}, bytes(20), "does not begin"),
        ({"w": said([2], 0, 8)}, bytes(9), "1 bytes more"),
        ({"w": said([-1], 0, 8)}, bytes(8), "can be understood of 'w'"),
        ({"w": said([True], 0, 4)}, bytes(4), "can be understood of 'w'"),
        ({"w": said([2], 8, 0)}, bytes(8), "does not begin"),
        ({"w": said([2], 0, 8, "F31")}, bytes(8), "F31"),
        ({"w": 3}, b"", "can be understood of 'w'"),
        ({"w": {**said([2], 0, 8), "more": 1}}, bytes(8), "can be understood of 'w'"),
        (b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "w": 3}', bytes(4), "w is in it twice"),
        (b'{"w": {"dtype": "F32", "dtype": "F16"}}', b"", "dtype is in it twice"),
        (b'{"w": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", "damaged"),
        (b'{"w": \xff}', b"", "damaged"),
    ],
)  # fmt: skip
def test_safetensors_that_lie_are_refused(header, numbers, words, tmp_path):
    assert words in refused(packed(header, numbers), tmp_path).detail


GOOD = {
    "saved": networks.saved(FLOATS),
    "legacy": networks.saved(FLOATS, _use_new_zipfile_serialization=False),
    "safetensors": torch_folders.as_safetensors(FLOATS),
}


@pytest.mark.parametrize("form", GOOD)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_refused_or_leaves_tensors_and_where_there_are_checksums_the_same(form, data, tmp_path_factory):
    content = bytearray(GOOD[form])
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = read(bytes(content), tmp_path_factory.getbasetemp())
    except CannotLoad:
        return
    assert all(isinstance(one, torch.Tensor) for one in found.values())
    if form == "saved":
        same(found, FLOATS)


@pytest.mark.parametrize("form", GOOD)
@settings(max_examples=80, deadline=None)
@given(part=st.floats(0.0, 0.999))
def test_a_file_cut_anywhere_is_refused(form, part, tmp_path_factory):
    refused(GOOD[form][: int(len(GOOD[form]) * part)], tmp_path_factory.getbasetemp())


def test_what_is_read_lies_where_it_may_be_written_to(tmp_path):
    for form in GOOD:
        found = read(GOOD[form], tmp_path)["a.weight"]
        np.testing.assert_array_equal(found.add_(1).numpy(), (FLOATS["a.weight"] + 1).numpy())
