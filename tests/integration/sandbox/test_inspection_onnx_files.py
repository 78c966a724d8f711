"""ONNX models with their weights in other files: from the same archive, or not at all."""

import numpy as np
import pytest

from fixtures import archives, artifacts
from fixtures.inspection import accepted, inspect, refused
from modelkeep.contracts.rejections import Reason

__all__ = ["inspect"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
ROWS = np.arange(20, dtype=np.float32).reshape(5, 4)


@pytest.mark.parametrize("pack", [archives.as_zip, archives.as_tar, lambda files: archives.as_tar(files, "w:gz")])
@pytest.mark.parametrize("in_node", [False, True])
async def test_weights_of_the_same_archive_are_the_model_s(inspect, warm_bench, pack, in_node):
    data = pack(archives.onnx_beside(in_node=in_node))
    found = await accepted(inspect, data, "onnx-files")
    assert found.signature.inputs[0].shape == (-1, 4)
    async with warm_bench.start(warm_bench.spec(data, "onnx-files")) as runner:
        await runner.load()
        answer = (await runner.run(x=ROWS))[1]["y"]
    np.testing.assert_allclose(answer, ROWS @ archives.WEIGHTS, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"location": "etc/passwd"}, Reason.LOAD_FAILED),
        ({"location": "/etc/passwd"}, Reason.LOAD_FAILED),
        ({"location": "../net/weights.bin"}, Reason.LOAD_FAILED),
        ({"location": "./weights.bin"}, Reason.LOAD_FAILED),
        ({"location": "*/_ORT_MEM_ADDR_/*"}, Reason.LOAD_FAILED),
        ({"location": "weights.bin\0"}, Reason.LOAD_FAILED),
        ({"offset": "17"}, Reason.TRUNCATED),
        ({"offset": "-1"}, Reason.TRUNCATED),
        ({"offset": str(2**64)}, Reason.TRUNCATED),
        ({"length": str(2**63)}, Reason.TRUNCATED),
        ({"length": "9" * 5000}, Reason.TRUNCATED),
        ({"basepath": "/"}, Reason.LOAD_FAILED),
    ],
)
async def test_weights_that_are_not_in_the_archive_are_refused(inspect, change, code):
    found = await refused(inspect, archives.as_zip(archives.onnx_beside(**change)), "onnx-files")
    assert found.code is code


async def test_a_file_with_the_name_of_an_address_in_memory_is_not_one(inspect):
    files = archives.onnx_beside("*/_ORT_MEM_ADDR_/*") | {"net/*/_ORT_MEM_ADDR_/*": bytes(100)}
    assert (await refused(inspect, archives.as_zip(files), "onnx-files")).code is Reason.LOAD_FAILED


async def test_a_graph_alone_is_told_to_come_with_its_folder(inspect):
    found = await refused(inspect, archives.onnx_beside()["net/net.onnx"], "onnx")
    assert "Push the folder" in found.detail


async def test_of_two_graphs_none_is_chosen(inspect):
    files = archives.onnx_beside() | {"net/other.onnx": artifacts.onnx_scores()}
    found = await refused(inspect, archives.as_zip(files), "onnx-files")
    assert "2 files .onnx" in found.detail


async def test_an_archive_that_was_declared_to_be_a_file_is_named(inspect):
    found = await refused(inspect, archives.as_zip(archives.onnx_beside()), "onnx")
    assert found.code is Reason.MISMATCH
    assert "onnx-files" in found.detail


async def test_a_file_that_was_declared_to_be_an_archive_is_named(inspect):
    found = await refused(inspect, artifacts.onnx_scores(), "onnx-files")
    assert found.code is Reason.MISMATCH
    assert "onnx (.onnx)" in found.detail
