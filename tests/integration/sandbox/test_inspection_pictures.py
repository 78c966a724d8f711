"""Versions that take pictures. In real runners."""

import io

import pytest
from PIL import Image

from fixtures import artifacts
from fixtures.inspection import accepted, refused
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.signature import ImageSpec, Layout

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD_ONNX = artifacts.onnx_scores()
PICTURE = ImageSpec(size=32)
LABELS = ("a", "b", "c", "d", "e")


async def test_raw_scores_get_a_softmax_and_probabilities_do_not(inspect):
    raw = await accepted(inspect, artifacts.onnx_picture_classifier(), "onnx", image=PICTURE)
    assert (raw.image.activation, raw.scores) == ("softmax", "scores")
    ready = await accepted(inspect, artifacts.onnx_picture_classifier(softmax=True), "onnx", image=PICTURE)
    assert ready.image.activation == "none"
    told = await accepted(inspect, artifacts.onnx_picture_classifier(), "onnx", image=ImageSpec(size=32, activation="none"))
    assert told.image.activation == "none"


@pytest.mark.parametrize("batch", ["n", 1])
async def test_a_picture_is_run_as_the_sample(inspect, batch):
    data = artifacts.onnx_picture_classifier(batch=batch)
    found = await accepted(inspect, data, "onnx", artifacts.picture(kind="JPEG"), "photo.jpg", LABELS, image=PICTURE)
    assert found.signature.layout is Layout.IMAGE
    assert found.report.sample == "given"
    assert found.signature.outputs[0].shape == (-1, 5)


async def test_a_sample_that_is_no_picture_is_refused(inspect):
    found = await refused(inspect, artifacts.onnx_picture_classifier(), "onnx", b"a,b\n1,2\n", image=PICTURE)
    assert found.code is Reason.SAMPLE_UNREADABLE


@pytest.mark.parametrize("image", [ImageSpec(size=64), ImageSpec(size=32, layout="NHWC")])
async def test_a_preparation_of_another_size_or_layout_is_refused(inspect, image):
    found = await refused(inspect, artifacts.onnx_picture_classifier(), "onnx", image=image)
    assert found.code is Reason.PREPROCESS_MISMATCH
    assert "[-1, 3, 32, 32]" in found.detail


async def test_labels_are_counted_against_the_classes(inspect):
    data = artifacts.onnx_picture_classifier()
    await accepted(inspect, data, "onnx", labels=LABELS, image=PICTURE)
    found = await refused(inspect, data, "onnx", labels=["a", "b"], image=PICTURE)
    assert found.code is Reason.LABELS_MISMATCH
    assert "2 labels" in found.detail
    assert "5 classes" in found.detail


async def test_labels_for_a_model_without_classes_are_refused(inspect):
    found = await refused(inspect, artifacts.as_joblib(artifacts.regressor()), "joblib", labels=["a"])
    assert found.code is Reason.LABELS_MISMATCH


async def test_pictures_are_not_what_a_table_model_takes(inspect):
    found = await refused(inspect, GOOD_ONNX, "onnx", image=PICTURE)
    assert found.code is Reason.PREPROCESS_MISMATCH


async def test_a_photograph_of_many_modes_is_prepared(inspect):
    into = io.BytesIO()
    Image.new("CMYK", (50, 40), (0, 200, 0, 0)).save(into, "JPEG")
    await accepted(inspect, artifacts.onnx_picture_classifier(), "onnx", into.getvalue(), "p.jpg", image=PICTURE)
