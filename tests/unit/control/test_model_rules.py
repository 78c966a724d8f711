"""How an upload is understood, and what may serve."""

import contextlib
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.errors import Invalid, UnsupportedFormat
from modelkeep.contracts.runner import Format, Manifest
from modelkeep.contracts.signature import ImageSpec
from modelkeep.contracts.storage import Blob
from modelkeep.control.models import errors, rules
from modelkeep.control.models.rules import Formats, Model, Sample, State, Upload, Version

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FORMATS = Formats.of(
    [
        Manifest("onnx", (Format("onnx", (".onnx",), "data"),)),
        Manifest("echo", (Format("echo", (".echo",), "data", for_tests=True),)),
        Manifest("sklearn", (Format("joblib", (".joblib",), "code"), Format("pickle", (".pkl", ".pickle"), "code"))),
    ]
)


def _model(**changes: object) -> Model:
    return Model(**{"id": "mdl_1", "name": "m", "description": "", "created_at": NOW, "created_by": "ada", **changes})


def _version(**changes: object) -> Version:
    given = {
        "id": "ver_1",
        "model_id": "mdl_1",
        "model": "m",
        "number": 1,
        "state": State.READY,
        "format": "onnx",
        "runner": "onnx",
    }
    given |= {"filename": "m.onnx", "size": 1, "digest": "0" * 64, "description": "", "created_at": NOW, "created_by": "ada"}
    return Version(**{**given, **changes})


@pytest.mark.parametrize(
    ("filename", "declared", "chosen"),
    [
        ("m.onnx", "", ("onnx", "onnx")),
        ("M.ONNX", "", ("onnx", "onnx")),
        ("m.v2.pickle", "", ("pickle", "sklearn")),
        ("m.bin", "joblib", ("joblib", "sklearn")),
        ("m.onnx", "pickle", ("pickle", "sklearn")),
    ],
)
def test_the_format_is_the_declared_one_or_the_suffix_tells(filename: str, declared: str, chosen: tuple[str, str]):
    form, runner = FORMATS.choose(filename, declared)
    assert (form.name, runner) == chosen


@pytest.mark.parametrize(
    ("filename", "declared"), [("saved.zip", "tensorflow"), ("m.zip", "keras"), ("m.h5", ""), ("m.pb", "")]
)
def test_what_is_to_be_converted_first_is_refused_with_how(filename: str, declared: str):
    with pytest.raises(UnsupportedFormat, match=r"tf2onnx\.convert"):
        FORMATS.choose(filename, declared)


@pytest.mark.parametrize(("filename", "declared"), [("m.exe", ""), ("onnx", ""), ("m.", ""), ("m.onnx", "paddle")])
def test_an_unknown_format_is_refused_with_what_is_supported(filename: str, declared: str):
    with pytest.raises(UnsupportedFormat) as refused:
        FORMATS.choose(filename, declared)
    for known in ("onnx (.onnx)", "joblib (.joblib)", "pickle (.pkl, .pickle)"):
        assert known in refused.value.message
    assert "echo" not in refused.value.message


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("m.onnx", "m.onnx"),
        ("/etc/passwd", "passwd"),
        ("C:\\models\\m.onnx", "m.onnx"),
        ("../../m.pkl", "m.pkl"),
        ("mödell.onnx", "mödell.onnx"),
    ],
)
def test_only_the_last_part_of_a_file_name_is_kept(given: str, kept: str):
    assert rules.plain_filename(given) == kept


@pytest.mark.parametrize("given", ["", "/", "a/", "x" * 256, "a\nb", "a\0b"])
def test_a_file_name_that_is_none_is_refused(given: str):
    with pytest.raises(Invalid):
        rules.plain_filename(given)


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20), min_size=1, max_size=20))
def test_labels_come_back_as_they_were_written(labels: list[str]):
    assert rules.read_labels("\n".join(labels).encode()) == tuple(labels)
    assert rules.read_labels(("\r\n".join(labels) + "\r\n\n").encode("utf-8-sig")) == tuple(labels)


@pytest.mark.parametrize("data", [b"", b"\n\n", b"a\n\nb", b"\xff\xfe", b"x" * 1001])
def test_labels_that_cannot_be_counted_on_are_refused(data: bytes):
    with pytest.raises(errors.InvalidLabels):
        rules.read_labels(data)


def test_preprocessing_is_named_or_spelt_out():
    assert rules.read_preprocess("imagenet") == ImageSpec()
    assert rules.read_preprocess('{"size": 32, "layout": "NHWC"}') == ImageSpec(size=32, layout="NHWC")
    assert rules.read_preprocess(msgspec.json.encode(ImageSpec(size=8)).decode()) == ImageSpec(size=8)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vgg",
        "{",
        "[]",
        '{"size": "x"}',
        '{"colour": 1}',
        '{"size": 0}',
        '{"size": 99999}',
        '{"std": [0, 1, 1]}',
        '{"layout": "CHW"}',
        '{"crop": 0}',
        '{"interpolation": "magic"}',
        '{"activation": "relu"}',
    ],
)
def test_preprocessing_that_makes_no_sense_is_refused(text: str):
    with pytest.raises(errors.InvalidPreprocess):
        rules.read_preprocess(text)


@given(st.text(max_size=200))
def test_preprocessing_of_any_text_is_an_answer_or_a_refusal(text: str):
    with contextlib.suppress(errors.InvalidPreprocess):
        assert isinstance(rules.read_preprocess(text), ImageSpec)


def test_uploads_have_the_same_fingerprint_only_when_all_of_them_is_the_same():
    upload = Upload(Blob("0" * 64, 1), "m.onnx", "onnx", "onnx")
    others = [
        msgspec.structs.replace(upload, description="x"),
        msgspec.structs.replace(upload, labels=("a",)),
        msgspec.structs.replace(upload, image=ImageSpec()),
        msgspec.structs.replace(upload, sample=Sample("1" * 64, "s.csv")),
        msgspec.structs.replace(upload, blob=Blob("1" * 64, 1)),
    ]
    prints = [one.fingerprint() for one in (upload, *others)]
    assert len(set(prints)) == len(prints)
    assert upload.fingerprint() == msgspec.structs.replace(upload).fingerprint()


def test_only_a_ready_version_that_is_not_archived_may_serve():
    rules.check_promotable(_model(), _version())
    for model, version, refusal in (
        (_model(archived_at=NOW), _version(), errors.ModelArchived),
        (_model(), _version(archived_at=NOW), errors.VersionArchived),
        (_model(), _version(state=State.RECEIVED), errors.VersionNotReady),
        (_model(), _version(state=State.VALIDATING), errors.VersionNotReady),
        (_model(), _version(state=State.REJECTED), errors.VersionNotReady),
    ):
        with pytest.raises(refusal):
            rules.check_promotable(model, version)


def test_what_serves_or_is_named_is_referred_to():
    assert rules.referring(_model(serving_version=2), _version(number=1)) == []
    named = _model(serving_version=1, aliases={"live": 1, "beta": 1, "next": 2})
    assert rules.referring(named, _version(number=1)) == [
        "m answers with it",
        "the alias beta points to it",
        "the alias live points to it",
    ]


def test_a_description_has_an_end():
    assert rules.check_description("x" * 10_000)
    with pytest.raises(Invalid):
        rules.check_description("x" * 10_001)
    with pytest.raises(Invalid):
        rules.check_description("a\0b")
