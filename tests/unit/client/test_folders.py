"""A folder is pushed as one file: the same whenever its files are, with nothing in it that is no plain file."""

import io
import os
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.client import Invalid
from modelkeep.client.folder import LEFT_OUT, format_of, packed
from modelkeep.sandbox import archive

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="/\\:"), min_size=1, max_size=20)


def fill(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def bytes_of(folder):
    done = packed(folder)
    with done.file:
        done.file.seek(0)
        data = done.file.read()
    assert len(data) == done.size
    return data


FILES = {"MLmodel": b"flavors: {}\n" * 100, "data/weights.bin": os.urandom(100_000), "empty": b"", "data/deep/a.txt": b"x"}


def test_the_server_reads_what_was_packed(tmp_path):
    data = bytes_of(fill(tmp_path, FILES))
    assert {name: bytes(content) for name, content in archive.contents(data).items()} == FILES


def test_what_does_not_shrink_is_stored_and_what_does_is_not(tmp_path):
    with zipfile.ZipFile(io.BytesIO(bytes_of(fill(tmp_path, FILES)))) as opened:
        kept = {one.filename: one.compress_type for one in opened.infolist()}
    assert (kept["data/weights.bin"], kept["MLmodel"]) == (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@given(names=st.sets(NAMES.filter(lambda name: name not in LEFT_OUT | {".", ".."}), min_size=1, max_size=5))
def test_the_same_files_are_the_same_bytes_in_any_order_and_at_any_time(names, tmp_path_factory):
    try:
        names = sorted(names)
        one = fill(tmp_path_factory.mktemp("a"), {name: name.encode() for name in names})
        other = fill(tmp_path_factory.mktemp("b"), {name: name.encode() for name in reversed(names)})
    except OSError:
        return  # the file system has no such name
    for name in names:
        os.utime(other / name, (1_000_000_000, 1_000_000_000))
    assert bytes_of(one) == bytes_of(other)


def test_what_others_leave_beside_a_model_stays_at_home(tmp_path):
    fill(tmp_path, {"a.onnx": b"a", ".git/config": b"secret", "__pycache__/a.pyc": b"b", ".DS_Store": b"c"})
    assert set(archive.contents(bytes_of(tmp_path))) == {"a.onnx"}


def test_a_link_is_named_and_nothing_is_packed(tmp_path):
    (tmp_path / "secret").write_text("a secret")
    folder = fill(tmp_path / "model", {"a.onnx": b"a"})
    (folder / "b.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(Invalid, match=r"b\.bin is a link") as caught:
        packed(folder)
    assert caught.value.code == "not_plain"


def test_a_linked_folder_is_a_link(tmp_path):
    folder = fill(tmp_path / "model", {"a.onnx": b"a"})
    (folder / "more").symlink_to(tmp_path)
    with pytest.raises(Invalid, match="more is a link"):
        packed(folder)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Invalid, match="no plain file"):
        packed(tmp_path)


def test_an_empty_folder_is_refused(client, standin, tmp_path):
    with pytest.raises(Invalid) as caught:
        client.push(tmp_path, "churn")
    assert caught.value.code == "folder_empty"
    assert standin.requests == []


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("MLmodel", "model.ubj"), "mlflow"),
        (("MLmodel", "model.skops"), "mlflow"),
        (("MLmodel", "model.pkl", "input_example.json"), "mlflow-code"),
        (("MLmodel", "data/model.pth"), "mlflow-code"),
        (("net.onnx", "net.onnx.data"), "onnx-files"),
        (("model.xml", "model.bin"), "openvino"),
        (("model.py",), "python"),
        (("model.py", "net.onnx"), "python"),
        (("model.py", "weights.pt"), "torch-state"),
        (("model.py", "net/pytorch_model.bin"), "torch-state"),
        (("modelkeep.toml", "weights.safetensors"), "torch-state"),
        (("readme.txt",), ""),
    ],
)
def test_the_names_in_a_folder_tell_its_format(names, told):
    assert format_of(names) == told


NETWORK = b"class Net(nn.Module):\n    def forward(self, x): ...\n    def predict(self, x): ...\n"
PREDICTS = b"class Model:\n    def load(self, path): ...\n    def predict(self, inputs): ...\n"


@pytest.mark.parametrize(
    ("source", "told"),
    [(NETWORK, "torch-state"), (b"def build(): ...\n", "torch-state"), (PREDICTS, "python"), (NETWORK + PREDICTS, "python"),
     (b"class Net(:\n", "python"), (b"\0", "python"), (b"(" * 100_000, "python")],
)  # fmt: skip
def test_weights_beside_a_class_that_predicts_are_the_class_s_own(source, told, tmp_path):
    done = packed(fill(tmp_path, {"model.py": source, "weights.pt": b"x"}))
    done.file.close()
    assert done.format == told


def test_a_folder_is_pushed_with_its_format_and_both_halves_are_told(client, standin, tmp_path):
    folder = fill(tmp_path / "net", {"net.onnx": b"a" * 1000, "net.data": os.urandom(3_000_000)})
    packing, sending = [], []
    tell, also = (lambda *seen: packing.append(seen)), (lambda *seen: sending.append(seen))
    version = client.push(folder, "photos", wait=False, on_packing=tell, on_progress=also)
    assert standin.uploads[0]["format"] == "onnx-files"
    assert set(archive.contents(standin.files[version.id])) == {"net.onnx", "net.data"}
    assert packing[-1] == (3_001_000, 3_001_000)
    assert len(packing) > 2
    assert sending[-1][0] == sending[-1][1] == len(standin.files[version.id])


def test_a_format_that_is_said_counts_more_than_names(client, standin, tmp_path):
    client.push(fill(tmp_path / "net", {"net.onnx": b"a"}), "photos", format="mlflow", wait=False)
    assert standin.uploads[0]["format"] == "mlflow"


def test_a_folder_goes_out_again_when_the_connection_breaks(client, standin, tmp_path):
    standin.lose_uploads = 1
    version = client.push(fill(tmp_path / "net", {"net.onnx": b"a"}), "photos", wait=False)
    assert [bytes(one) for one in archive.contents(standin.files[version.id]).values()] == [b"a"]
