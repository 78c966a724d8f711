"""Models in OpenVINO's own form, in real runners: they answer as the original, or are refused before OpenVINO sees them."""

import numpy as np
import pytest

from fixtures import archives, openvino_networks
from fixtures.inspection import accepted, refused
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.signature import Dtype

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROWS = np.arange(28, dtype=np.float32).reshape(7, 4) / 10


@pytest.mark.parametrize("batch", [-1, 1, 3])
async def test_it_answers_as_the_original(inspect, warm_bench, batch):
    data = archives.as_zip({f"net/{name}": content for name, content in openvino_networks.openvino_files(batch).items()})
    found = await accepted(inspect, data, "openvino")
    assert (found.signature.inputs[0].name, found.signature.inputs[0].dtype) == ("x", Dtype.FP32)
    assert (found.signature.inputs[0].shape, found.signature.outputs[0].shape) == ((-1, 4), (-1, 3))
    async with warm_bench.start(warm_bench.spec(data, "openvino")) as runner:
        await runner.load()
        answer = (await runner.run(x=ROWS))[1]["y"]
    np.testing.assert_allclose(answer, ROWS @ archives.WEIGHTS, rtol=1e-6)


ENTITIES = b'<!DOCTYPE net [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda xml: xml.replace(b"<net ", ENTITIES + b"<net ", 1), Reason.LOAD_FAILED),
        (lambda xml: xml.decode().encode("utf-16"), Reason.LOAD_FAILED),
        (lambda xml: xml.replace(b'offset="0"', b'offset="1"'), Reason.TRUNCATED),
        (lambda xml: xml.replace(b'size="48"', b'size="99999999999"'), Reason.TRUNCATED),
        (lambda xml: xml.replace(b'offset="0"', b'offset="-8"'), Reason.TRUNCATED),
        (lambda xml: xml[: len(xml) // 2], Reason.TRUNCATED),
        (lambda xml: b"<net>" + b"<a>" * 100 + b"</a>" * 100 + b"</net>", Reason.LOAD_FAILED),
        (lambda xml: b"<html></html>", Reason.LOAD_FAILED),
        (lambda xml: xml.replace(b'type="MatMul" version="opset1"', b'type="Mine" version="extension"'), Reason.LOAD_FAILED),
    ],
    ids=["entities", "utf-16", "offset", "size", "negative", "cut", "deep", "html", "extension"],
)
async def test_a_file_that_is_not_as_it_must_be_is_refused(inspect, change, code):
    files = openvino_networks.openvino_files()
    changed = change(files["model.xml"])
    assert changed != files["model.xml"]
    found = await refused(inspect, archives.as_zip(files | {"model.xml": changed}), "openvino")
    assert found.code is code


async def test_weights_that_are_cut_are_refused(inspect):
    files = openvino_networks.openvino_files()
    found = await refused(inspect, archives.as_zip(files | {"model.bin": files["model.bin"][:40]}), "openvino")
    assert found.code is Reason.TRUNCATED


async def test_of_two_networks_none_is_chosen(inspect):
    files = openvino_networks.openvino_files()
    more = {f"other{name[5:]}": content for name, content in files.items()}
    assert "2 networks" in (await refused(inspect, archives.as_zip(files | more), "openvino")).detail
