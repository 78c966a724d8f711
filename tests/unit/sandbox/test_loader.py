"""An artifact is read, checked and named before anything of it is loaded."""

import hashlib
import os

import pytest

from fixtures import artifacts
from modelkeep.contracts import discovery
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad, Format, Manifest, ModelFacts
from modelkeep.contracts.signature import Signature
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox import loader


class Refusing:
    """A runner whose load raises what it is told to."""

    manifest = Manifest("refusing", (Format("refusing", (".no",), "data"),))
    error: Exception | None = None
    facts = ModelFacts(Signature(()), "refusing", "1")

    @staticmethod
    def recognise(head, tail):
        return "refusing" if head.startswith(b"no") else None

    def load(self, artifact, options):
        if self.error:
            raise self.error
        return self


@pytest.fixture
def stored(tmp_path):
    opened = []

    def stored(data, name="echo", **changes):
        path = tmp_path / "artifact"
        path.write_bytes(data)
        opened.append(os.open(path, os.O_RDONLY))
        fields = {"digest": hashlib.sha256(data).hexdigest(), "size": len(data), **changes}
        return RunnerSpec("ver_1", format=name, runner=name, **fields), opened[-1]

    yield stored
    for one in opened:
        os.close(one)


def load(stored, data, name="refusing", error=None, **changes):
    spec, fd = stored(data, name, **changes)
    runner = type("Told", (Refusing,), {"error": error})
    return loader.load(spec, (), fd, [runner])


def test_what_was_uploaded_is_what_is_read(stored):
    data = os.urandom(100_000)
    spec, fd = stored(data)
    assert loader.read(fd, spec.size, spec.digest) == data
    assert loader.read(fd, spec.size, spec.digest) == data  # the position in the file is nobody's business


@pytest.mark.parametrize("changes", [{"digest": "0" * 64}, {"size": 3}, {"size": 5000}])
def test_other_bytes_than_those_uploaded_are_corrupt(stored, changes):
    spec, fd = stored(b"some content", **changes)
    with pytest.raises(CannotLoad) as refused:
        loader.read(fd, spec.size, spec.digest)
    assert refused.value.reason is Reason.CORRUPT


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (artifacts.picture(), "a PNG picture"),
        (artifacts.picture(kind="JPEG"), "a JPEG picture"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x89HDF\r\n\x1a\n", "tf2onnx"),
        (b"PK\x03\x04" + bytes(26) + b"model/saved_model.pb", "a TensorFlow SavedModel: convert it to ONNX with tf2onnx"),
        (b"PK\x03\x04" + bytes(26) + b"model.weights.h5", "a Keras model: convert it to ONNX with tf2onnx"),
        (b"model/saved_model.pb".ljust(257, b"\0") + b"ustar", "a TensorFlow SavedModel"),
        (b"  <!DOCTYPE html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b'{"learner": 1}', "JSON"),
        (b"PK\x03\x04....", "ZIP"),
        (b"a,b\n1,2\n", "plain text"),
        (bytes(100), "zeros"),
        (b"\xfe\xfd\xfc", "no kind known"),
    ],
)
def test_content_of_no_format_is_described(stored, data, words):
    with pytest.raises(CannotLoad, match=words) as refused:
        load(stored, data)
    assert refused.value.reason is Reason.UNRECOGNISED


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (ValueError("odd value"), Reason.LOAD_FAILED, "ValueError: odd value"),
        (CannotLoad(Reason.NOT_FITTED, "not yet"), Reason.NOT_FITTED, "not yet"),
        (MemoryError("Unable to allocate 20 GiB"), Reason.MEMORY_LIMIT, "20 GiB"),
        (RuntimeError("std::bad_alloc"), Reason.MEMORY_LIMIT, "bad_alloc"),
        (ModuleNotFoundError("No module named 'fancy'", name="fancy"), Reason.MISSING_DEPENDENCY, "'fancy'"),
        (KeyError(), Reason.LOAD_FAILED, "KeyError"),
    ],
)
def test_whatever_loading_raises_becomes_a_reason(stored, error, reason, words):
    with pytest.raises(CannotLoad, match=words) as refused:
        load(stored, b"no matter", error=error)
    assert refused.value.reason is reason


def test_a_good_file_is_loaded(stored):
    assert load(stored, b"no matter").facts.framework == "refusing"


def test_a_format_nobody_runs_is_refused(stored):
    with pytest.raises(CannotLoad, match="refusing"):
        loader.load(*[stored(b"no", "refusing")[0], (), stored(b"no", "refusing")[1]], [])


def test_what_people_read_has_no_paths_and_no_end():
    said = loader.for_people("cannot open /srv/models/secret.bin:\n  'and /opt/venv/lib/python3.11/x.py' a/b 1/2 " + "x" * 900)
    assert "secret" not in said
    assert "python3" not in said
    assert "a/b 1/2" in said
    assert len(said) == loader.MAX_DETAIL
    assert "\n" not in said


def test_a_plugin_that_cannot_be_imported_does_not_take_the_others_along(monkeypatch, capfd):
    def find(group, name):
        if name == "onnx":
            raise ImportError("no onnxruntime here")
        return Refusing

    monkeypatch.setattr(discovery, "find", find)
    loader.installed.cache_clear()
    try:
        assert Refusing in loader.installed()
        assert len(loader.installed()) == len(discovery.names(discovery.RUNNERS)) - 1
        assert "onnx cannot be imported" in capfd.readouterr().err
    finally:
        loader.installed.cache_clear()
