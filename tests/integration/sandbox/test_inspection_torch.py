"""PyTorch networks in real runners: locked down, without a file to write, found to be what they are."""

import numpy as np
import pytest
import torch

from fixtures import networks
from fixtures.inspection import accepted
from modelkeep.contracts.signature import Dtype
from modelkeep.contracts.snapshot import Limits

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

BATCH = torch.export.Dim("batch")
DENSE = networks.dense()
FILES = {
    "torchscript": networks.traced(DENSE, torch.ones(2, 4)),
    "torch-export": networks.exported(DENSE, torch.ones(2, 4), shapes=({0: BATCH},)),
}
LIMITS = Limits(memory_mb=2048, load_timeout_s=60, run_timeout_s=20)
ROWS = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)


@pytest.mark.parametrize("name", FILES)
async def test_it_is_accepted_without_a_sample(inspect, name):
    found = await accepted(inspect, FILES[name], name, limits=LIMITS)
    (only,) = found.signature.inputs
    assert (only.name, only.dtype, only.shape) == ("input", Dtype.FP32, (-1, 4))
    assert [(one.name, one.shape) for one in found.signature.outputs] == [("output", (-1, 3))]
    assert found.report.framework == "torch"
    assert found.report.deterministic
    assert all(check.ok for check in found.report.checks), found.report.checks


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", FILES)
async def test_a_runner_that_may_write_nothing_answers_what_torch_answers(warm_bench, name, threads):
    limits = Limits(memory_mb=2048, load_timeout_s=60, threads=threads)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            expected = DENSE(torch.from_numpy(ROWS)).numpy()
    finally:
        torch.set_num_threads(before)
    async with warm_bench.start(warm_bench.spec(FILES[name], name, limits=limits)) as runner:
        await runner.load()
        for _ in range(3):
            _result, outputs = await runner.run(input=ROWS)
            np.testing.assert_array_equal(outputs["output"], expected)
