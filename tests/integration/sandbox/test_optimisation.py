"""A model is run faster on its host only with proof: same answers, or answers within the budget on rows held out."""

import io
import json
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from fixtures.inspection import accepted, refused
from fixtures.onnx_networks import convolutional, pictures
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.snapshot import Limits
from modelkeep.contracts.storage import Blob
from modelkeep.sandbox import frames, golden
from modelkeep.worker.compilation import Compiler
from modelkeep.worker.inspection import InspectionRequest, RunnerInspector
from modelkeep.worker.optimisation import Optimiser
from modelkeep.worker.processor import Processor

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERE = Processor(bfloat16=False, narrow=True)
BOTH = frozenset({"onnx", "openvino"})
LIMITS = Limits(memory_mb=2048, load_timeout_s=30, run_timeout_s=20)


def rows(array) -> bytes:
    return json.dumps({"x": array.tolist()}).encode()


SAMPLE = rows(pictures(8))
CALIBRATION = rows(pictures(80))


@pytest.fixture
def inspect(warm_bench):
    async def inspect(data, name="onnx", sample=SAMPLE, *, processor=HERE, installed=BOTH, sample_name="s.json", **asked):
        async def keep(data: bytes) -> Blob:
            return Blob(warm_bench.keep(data), len(data))

        optimiser = Optimiser(warm_bench.start, keep, installed, processor)
        spec = {key: asked.pop(key) for key in ("image",) if key in asked}
        asked.setdefault("calibration_filename", "c.json")
        request = InspectionRequest(warm_bench.spec(data, name, limits=LIMITS, **spec), sample, sample_name, **asked)
        compiler = Compiler(warm_bench.start, keep)
        return await RunnerInspector(warm_bench.start, LIMITS, compiler, keep, optimiser).inspect(request)

    return inspect


def candidates(found, name=""):
    return [one for one in found.report.optimised.candidates if not name or one.name == name]


async def serves(warm_bench, data, found):
    """Load what is to serve, as serving does; returns the answer's facts, and the answer to some rows of both."""
    form = msgspec.structs.asdict(found.compiled)
    spec = warm_bench.spec(data, "onnx", signature=found.signature)
    asked = {"x": pictures(90)[80:]}
    async with warm_bench.start(spec) as one, warm_bench.start(msgspec.structs.replace(spec, **form)) as two:
        await one.load()
        loaded = await two.load()
        (_, wanted), (_, given) = await one.run(**asked), await two.run(**asked)
        kept = golden.unpack(Path(warm_bench.folder, found.report.golden).read_bytes())
        message, again = await two.run(**kept.inputs)
        golden.check(kept, message, again)
    return loaded.facts, wanted, given


# ---- threads


async def test_as_many_threads_serve_as_were_proven(inspect, warm_bench, monkeypatch):
    monkeypatch.setattr("modelkeep.worker.optimisation.WORTH_IT", 0.0)  # the fastest of them, on whatever machine
    data = convolutional()
    found = await accepted(inspect, data, optimise="threads", processor=msgspec.structs.replace(HERE, cores=5))
    assert [(one.name, one.provider, one.precision) for one in candidates(found)] == [
        (f"threads-{number}", "onnx", "f32") for number in (2, 4, 5)
    ]
    used = next(one for one in candidates(found) if one.used)
    assert used.largest_difference < 1e-4
    assert used.rows >= 8
    assert (found.compiled.digest, found.compiled.runner) == (warm_bench.keep(data), "onnx")
    assert used.name == f"threads-{found.compiled.threads}"
    form = msgspec.structs.asdict(found.compiled)
    spec = warm_bench.spec(data, "onnx", signature=found.signature)
    async with warm_bench.start(spec) as one, warm_bench.start(msgspec.structs.replace(spec, **form)) as many:
        await one.load()
        await many.load()
        more = psutil.Process(many.pid).num_threads() - psutil.Process(one.pid).num_threads()
    assert more == found.compiled.threads - 1


async def test_a_model_that_more_threads_do_not_make_faster_keeps_what_it_has(inspect, monkeypatch):
    monkeypatch.setattr("modelkeep.worker.optimisation.WORTH_IT", 1e9)
    found = await accepted(inspect, convolutional(), optimise="threads", processor=msgspec.structs.replace(HERE, cores=2))
    (two,) = candidates(found)
    assert not two.used
    assert "times as fast" in two.reason
    assert found.compiled is None


async def test_a_machine_of_one_core_has_no_other_number_of_threads(inspect):
    found = await accepted(inspect, convolutional(), optimise="threads", processor=HERE)
    assert candidates(found) == []
    assert found.report.optimised.reason == "Nothing could be tried here."


# ---- OpenVINO in FP32


async def test_the_same_file_run_by_openvino_agrees_and_serves_where_it_is_asked_for(inspect, warm_bench):
    data = convolutional()
    found = await accepted(inspect, data, optimise="openvino")
    (candidate,) = candidates(found)
    assert candidate.used
    assert candidate.measure is None
    assert 0 < candidate.largest_difference < 1e-4
    assert candidate.rows >= 8
    assert found.compiled.digest == warm_bench.keep(data)
    assert (found.compiled.runner, found.compiled.precision) == ("openvino", "f32")
    assert found.report.cost_ms == found.report.optimised.latency_ms == candidate.latency_ms
    assert found.report.optimised.memory_bytes > 0
    assert found.report.details["served_by"] == "OpenVINO, CPU"
    facts, wanted, given = await serves(warm_bench, data, found)
    assert facts.details["precision"] == "f32"
    np.testing.assert_allclose(given["scores"], wanted["scores"], rtol=1e-3, atol=1e-4)


async def test_without_a_wish_only_what_is_worth_it_serves_and_all_is_reported(inspect):
    found = await accepted(inspect, convolutional())
    assert [(one.name, one.provider) for one in candidates(found)] == [
        ("bf16", "openvino"),
        ("int8", "onnx"),
        ("int8", "openvino"),
        ("openvino", "openvino"),
    ]
    *untried, openvino = candidates(found)
    assert untried[0].reason == "This processor does not compute in bfloat16."
    assert untried[1].reason == untried[2].reason == "It needs calibration rows."
    assert openvino.used is (openvino.speed >= 1.1)
    assert found.report.optimised.used is openvino.used is (found.compiled is not None)


async def test_int8_within_the_budget_serves_with_its_own_golden_rows(inspect, warm_bench):
    data = convolutional()
    found = await accepted(inspect, data, optimise="int8", calibration=CALIBRATION, budget=0.05)
    used = next(one for one in candidates(found) if one.used)
    assert used.precision == found.compiled.precision == "int8"
    assert used.measure <= 0.05
    assert used.rows == found.report.optimised.rows_held_out == 40
    assert found.report.optimised.rows_calibrated == 40
    assert found.compiled.digest != warm_bench.keep(data)
    assert found.report.cost_ms == used.latency_ms
    facts, wanted, given = await serves(warm_bench, data, found)
    assert facts.details["precision"] == "int8"
    assert (wanted["scores"] != given["scores"]).any()
    assert (wanted["scores"].argmax(axis=1) == given["scores"].argmax(axis=1)).mean() >= 0.9


@pytest.mark.parametrize("provider", ["onnx", "openvino"])
async def test_int8_is_run_by_either_library(inspect, warm_bench, provider):
    installed = frozenset({provider})
    found = await accepted(inspect, convolutional(), installed=installed, optimise="int8", calibration=CALIBRATION, budget=0.05)
    assert found.compiled.runner == provider
    facts, _wanted, _given = await serves(warm_bench, convolutional(), found)
    assert facts.details["precision"] == "int8"


async def test_int8_outside_the_budget_is_refused_with_what_was_measured(inspect):
    found = await refused(inspect, convolutional(fragile=True), optimise="int8", calibration=CALIBRATION, budget=0.0)
    assert found.code == Reason.OPTIMISATION_MISSED
    assert "It measures " in found.detail
    assert "int8-ends by onnx" in found.detail
    assert "budget is 0" in found.detail


async def test_int8_outside_the_budget_leaves_the_original_where_nobody_asked_for_it(inspect):
    found = await accepted(inspect, convolutional(fragile=True), calibration=CALIBRATION, budget=0.01)
    integers = [one for one in candidates(found) if one.precision == "int8"]
    assert len(integers) == 4
    assert all("It measures" in one.reason and one.measure > 0.01 and not one.used for one in integers)
    assert found.compiled is None or found.compiled.precision == "f32"


async def test_a_budget_is_never_spent_without_being_given(inspect):
    found = await accepted(inspect, convolutional(), calibration=CALIBRATION)
    assert [one.reason for one in candidates(found, "int8")] == ["It needs an accuracy budget above 0."] * 2


async def test_bfloat16_is_refused_by_a_processor_that_lacks_it_whatever_the_kernel_said(inspect):
    asked = {"optimise": "bf16", "calibration": CALIBRATION, "budget": 0.5}
    found = await refused(inspect, convolutional(), **asked)
    assert "does not compute in bfloat16" in found.detail
    if not Processor.here().bfloat16:
        found = await refused(inspect, convolutional(), processor=Processor(bfloat16=True, narrow=True), **asked)
        assert "was to compute in bf16, and says f32" in found.detail


async def test_what_is_not_installed_is_said(inspect):
    found = await refused(inspect, convolutional(), installed=frozenset({"onnx"}), optimise="openvino")
    assert found.code == Reason.OPTIMISATION_MISSED
    assert "not installed" in found.detail


async def test_a_graph_of_a_fixed_batch_is_quantised_too(inspect):
    found = await accepted(inspect, convolutional(batch=1), optimise="int8", calibration=CALIBRATION, budget=0.1)
    assert found.compiled.precision == "int8"


async def test_it_can_be_switched_off(inspect):
    found = await accepted(inspect, convolutional(), optimise="off")
    assert found.compiled is None
    assert "switched off" in found.report.optimised.reason


async def test_a_model_of_another_kind_is_served_as_it_is_unless_more_was_asked_for(inspect):
    data = json.dumps({"echo": 1}).encode()
    found = await accepted(inspect, data, "echo", None)
    assert "Only graphs" in found.report.optimised.reason
    found = await refused(inspect, data, "echo", None, optimise="openvino")
    assert found.code == Reason.OPTIMISATION_MISSED
    assert "Only graphs" in found.detail


# ---- proof


@pytest.mark.parametrize(
    ("runner", "precision", "words"),
    [
        ("onnx", "int8", "the graph has none"),
        ("openvino", "int8", "runs no operation so"),
        ("onnx", "bf16", "does not compute in bf16"),
        ("xgboost", "f32", "does not run the format onnx"),
        ("nobody", "f32", "does not run the format onnx"),
    ],
)
async def test_a_runner_that_finds_another_provider_or_precision_does_not_load(warm_bench, runner, precision, words):
    spec = warm_bench.spec(convolutional(), "onnx", runner=runner, precision=precision)
    async with warm_bench.start(spec) as session:
        loaded = await session.load()
    assert isinstance(loaded, frames.LoadFailed)
    assert loaded.reason == Reason.PROVIDER_MISMATCH
    assert words in loaded.detail


async def test_openvino_refuses_weights_in_other_files_as_onnx_runtime_does(warm_bench):
    import onnx

    model = onnx.load_from_string(convolutional())
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "/etc/hostname")
    model.graph.initializer[0].ClearField("raw_data")
    spec = warm_bench.spec(model.SerializeToString(), "onnx", runner="openvino")
    async with warm_bench.start(spec) as session:
        loaded = await session.load()
    assert isinstance(loaded, frames.LoadFailed)
    assert "weights in another file" in loaded.detail


# ---- hostile and wrong calibration


def csv(count=80, columns="abcd"):
    lines = [",".join(columns)] + [",".join(str(at * 0.1 + place) for place in range(len(columns))) for at in range(count)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("calibration", "filename", "words"),
    [
        (rows(pictures(39)), "c.json", "39 different rows, and 40"),
        (rows(np.repeat(pictures(4), 30, axis=0)), "c.json", "4 different rows"),
        (rows(pictures(50)[:, :2]), "c.json", "wrong shape"),
        (b'{"y": [[1]]}', "c.json", "no such input"),
        (csv(), "c.csv", "JSON"),
        (b"", "c.csv", "empty"),
        (b"\xff\xfe\x00", "c.csv", "UTF-8"),
        (b'{"x": [1, 2', "c.json", "JSON"),
        (json.dumps({"x": [[[[None] * 16] * 16] * 3] * 50}).encode(), "c.json", "Row 1"),
        (rows(np.where(pictures(50) > 6, np.inf, pictures(50))).replace(b"Infinity", b"1e999"), "c.json", ""),
    ],
)
async def test_calibration_that_cannot_be_used_is_refused_with_why(inspect, calibration, filename, words):
    found = await refused(
        inspect, convolutional(), optimise="int8", calibration=calibration, calibration_filename=filename, budget=0.1
    )
    assert found.code == Reason.CALIBRATION_UNUSABLE
    assert words in found.detail


def zipped(files) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return into.getvalue()


def png(array) -> bytes:
    from PIL import Image

    into = io.BytesIO()
    Image.fromarray(np.clip(array.transpose(1, 2, 0) * 20 + 128, 0, 255).astype(np.uint8)).save(into, "PNG")
    return into.getvalue()
