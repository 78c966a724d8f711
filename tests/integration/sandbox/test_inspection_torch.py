"""PyTorch networks in real runners: locked down, without a file to write, found to be what they are."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fixtures import networks
from fixtures.inspection import accepted, refused
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.signature import Dtype, ImageSpec
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


SAMPLES = {
    "rows": (DENSE, [[0.5, 1.0, -1.0, 2.0], [1.5, 0.0, 1.0, -2.0]], {"input": (Dtype.FP32, (-1, 4))}),
    "records": (
        DENSE,
        [dict.fromkeys("abcd", 0.5), dict.fromkeys("abcd", 1)],
        {"input": (Dtype.FP32, (-1, 4))},
    ),
    "whole numbers for fractions": (DENSE, [[1, 2, 3, 4], [5, 6, 7, 8]], {"input": (Dtype.FP32, (-1, 4))}),
    "tokens": (networks.seeded(networks.Sequence), {"tokens": [[1, 2, 3], [4, 5, 6]]}, {"tokens": (Dtype.INT64, (-1, -1))}),
    "tokens without a name": (networks.seeded(networks.Sequence), [[1, 2, 3], [4, 5, 6]], {"tokens": (Dtype.INT64, (-1, -1))}),
    "two inputs": (
        networks.seeded(networks.Masked),
        {"ids": [[1, 2, 3], [4, 5, 6]], "mask": [[1, 1, 0], [1, 1, 1]]},
        {"ids": (Dtype.INT64, (-1, -1)), "mask": (Dtype.INT64, (-1, -1))},
    ),
    "two inputs in records": (
        networks.seeded(networks.Masked),
        [{"ids": [1, 2, 3], "mask": [1, 1, 0]}, {"ids": [4, 5, 6], "mask": [1, 1, 1]}],
        {"ids": (Dtype.INT64, (-1, -1)), "mask": (Dtype.INT64, (-1, -1))},
    ),
    "blocks": (
        networks.pictures(),
        np.zeros((2, 3, 6, 6)).tolist(),
        {"input": (Dtype.FP32, (-1, 3, -1, -1))},
    ),
}


@pytest.mark.parametrize("what", SAMPLES)
async def test_a_sample_says_what_a_scripted_module_takes(inspect, what):
    module, sample, expected = SAMPLES[what]
    found = await accepted(
        inspect, networks.scripted(module), "torchscript", json.dumps(sample).encode(), "sample.json", limits=LIMITS
    )
    assert {one.name: (one.dtype, one.shape) for one in found.signature.inputs} == expected
    assert all(check.ok for check in found.report.checks), found.report.checks
    assert found.report.rows_tested == 2


async def test_a_scripted_module_without_a_sample_is_told_to_bring_one(inspect):
    found = await refused(inspect, networks.scripted(DENSE), "torchscript", limits=LIMITS)
    assert found.code is Reason.SAMPLE_NEEDED
    assert "sample" in found.advice


async def test_a_scripted_module_of_pictures_needs_no_more_than_how_they_are_prepared(inspect):
    image = ImageSpec(size=24)
    found = await accepted(inspect, networks.scripted(networks.pictures()), "torchscript", limits=LIMITS, image=image)
    assert found.signature.image
    assert found.scores == "output"


class Hidden(nn.Module):
    """Answers what has not the rows first."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.sum(0)


async def test_an_output_that_is_not_row_by_row_is_refused(inspect):
    found = await refused(inspect, networks.scripted(Hidden()), "torchscript", b"[[1.0, 2.0], [3.0, 4.0]]", limits=LIMITS)
    assert found.code is Reason.OUTPUT_INVALID
    assert "output_1" in found.detail


class WithLoss(nn.Module):
    """Answers each row, and one number for all."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": x.mean(), "logits": x * 2}


async def test_one_number_for_all_rows_is_left_out_of_the_answers_and_said(inspect):
    data = networks.scripted(WithLoss())
    found = await accepted(inspect, data, "torchscript", b"[[1.0, 2.0], [3.0, 4.0]]", limits=LIMITS)
    assert [(one.name, one.shape) for one in found.signature.outputs] == [("logits", (-1, 2))]
    assert any(warning.startswith("loss: ") and "left out" in warning for warning in found.report.warnings)


class Keyed(nn.Module):
    """Takes its tensors by name."""

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        return features["age"] + 2 * features["pixels"].sum(1)


async def test_a_dictionary_of_tensors_has_the_keys_of_the_sample(inspect, warm_bench):
    data = networks.scripted(Keyed())
    sample = b'[{"age": 1.5, "pixels": [1.0, 2.0]}, {"age": 2.5, "pixels": [3.0, 4.0]}]'
    found = await accepted(inspect, data, "torchscript", sample, "sample.json", limits=LIMITS)
    assert {one.name for one in found.signature.inputs} == {"age", "pixels"}
    async with warm_bench.start(warm_bench.spec(data, "torchscript", limits=LIMITS, signature=found.signature)) as runner:
        await runner.load()
        given = {one.name: np.ones((2, *one.shape[1:]), one.dtype.numpy) for one in found.signature.inputs if one.name == "age"}
        _result, outputs = await runner.run(pixels=np.array([[1, 2], [3, 4]], np.float32), **given)
    assert outputs["output"].tolist() == [7.0, 15.0]
    without = await refused(inspect, data, "torchscript", limits=LIMITS)
    assert (without.code, "dictionary of tensors" in without.detail) == (Reason.SAMPLE_NEEDED, True)


class Writes(nn.Module):
    """Writes a file while it answers: TorchScript may call `torch.save`, and `aten::save` with a path."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, self.path)
        return x


class Reads(nn.Module):
    """Answers what stands in a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_file(self.path, False, x.size(0), dtype=torch.uint8)


async def test_a_module_that_writes_a_file_can_do_so_unprotected_and_not_in_a_runner(inspect, tmp_path):
    path = tmp_path / "written"
    data = networks.scripted(Writes(str(path)))
    await inspect(data, "torchscript", b"[[1.0, 2.0], [3.0, 4.0]]", limits=LIMITS)  # torch does not say that it could not write
    assert not path.exists()
    networks.loaded(data)(torch.ones(2, 2))
    assert path.exists(), "the control does not show the attack"


async def test_a_module_that_reads_a_file_can_do_so_unprotected_and_not_in_a_runner(inspect, tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"secret!!")
    data = networks.scripted(Reads(str(path)))
    found = await refused(inspect, data, "torchscript", b"[[1.0, 2.0], [3.0, 4.0]]", limits=LIMITS)
    assert found.code is Reason.PREDICT_FAILED
    assert networks.loaded(data)(torch.ones(4, 2)).tolist() == list(b"secr"), "the control does not show the attack"
    assert path.read_bytes() == b"secret!!"
