"""The tensors of gRPC: any values of any datatype are the same raw, typed, and over REST; no message whatever is our fault."""

import asyncio
import json
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest
from grpc import aio
from hypothesis import given
from hypothesis import strategies as st

from fixtures.rpcs import FIELDS, ONE, Rpcs, array_in, question, rpcs_of
from modelkeep.contracts.signature import FLOATS, Dtype, Signature, TensorSpec
from modelkeep.serving.dialects.open_inference import grpc as dialect
from modelkeep.serving.protos import open_inference_pb2 as pb

S = grpc.StatusCode
OURS = {S.INTERNAL, S.UNKNOWN, S.UNIMPLEMENTED, S.UNAVAILABLE, S.CANCELLED}


def identity(dtype: Dtype) -> Signature:
    return Signature((TensorSpec("x", dtype, (-1, 2), nullable=dtype in FLOATS),), (TensorSpec("y", dtype, (-1, 2)),))


def echo(inputs: dict) -> dict:
    return {"y": inputs["x"]}


@pytest.fixture(scope="module")
def asked(module_house, tmp_path_factory) -> Iterator[Callable[[str, bytes], bytes | aio.AioRpcError]]:
    """Ask a model for each datatype again and again, without an event loop of the test's own (for properties)."""
    with asyncio.Runner() as runner:

        async def make():
            house = module_house(tmp_path_factory.mktemp("run"))
            await house.serve("m")
            for dtype in Dtype:
                await house.serve(dtype.value.lower(), identity(dtype), echo)
            served = rpcs_of(house)
            return house, served, await served.__aenter__()

        house, served, rpcs = runner.run(make())

        async def ask(rpc: str, message: bytes) -> bytes | aio.AioRpcError:
            try:
                return await rpcs.ask(rpc, message)
            except aio.AioRpcError as error:
                return error

        async def rest(model: str, body: dict) -> dict:
            answer = await house.client.post(f"/v2/models/{model}/infer", json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        found = lambda rpc, message: runner.run(ask(rpc, message))  # noqa: E731
        found.rest = lambda model, body: runner.run(rest(model, body))
        yield found

        async def end() -> None:
            await served.__aexit__(None, None, None)
            await house.close()

        runner.run(end())


def values(dtype: Dtype) -> st.SearchStrategy:
    if dtype is Dtype.BOOL:
        return st.booleans()
    if dtype is Dtype.BYTES:
        return st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
    if dtype in FLOATS:
        return st.floats(width={"FP16": 16, "FP32": 32, "FP64": 64}[dtype.value], allow_nan=False, allow_infinity=False)
    limits = np.iinfo(dtype.numpy)
    return st.integers(int(limits.min), int(limits.max))


@st.composite
def tensors(draw: st.DrawFn) -> tuple[Dtype, np.ndarray]:
    dtype = draw(st.sampled_from(list(Dtype)))
    flat = draw(st.lists(st.tuples(values(dtype), values(dtype)), min_size=1, max_size=6))
    array = np.empty((len(flat), 2), dtype.numpy)
    for row, pair in enumerate(flat):
        array[row] = pair
    return dtype, array


@given(tensors())
def test_raw_typed_and_rest_are_answered_with_the_same_values(asked, drawn: tuple[Dtype, np.ndarray]) -> None:
    dtype, array = drawn
    name = dtype.value.lower()
    body = {"inputs": [{"name": "x", "datatype": dtype.value, "shape": list(array.shape), "data": array.tolist()}]}
    (told,) = asked.rest(name, body)["outputs"]
    rest = np.array(told["data"], dtype.numpy).reshape(told["shape"])
    forms = [True] if dtype is Dtype.FP16 else [True, False]
    for bare in forms:
        answer = asked("ModelInfer", question(array, dtype, bare=bare, model=name, name="x").SerializeToString())
        assert isinstance(answer, bytes), answer
        found = pb.ModelInferResponse.FromString(answer)
        assert bool(found.raw_output_contents) is bare
        assert found.outputs[0].datatype == dtype.value
        got = array_in(found)
        if dtype is Dtype.BYTES:
            assert [[value.decode() for value in row] for row in got.tolist()] == array.tolist() == rest.tolist()
        else:
            assert got.tobytes() == array.tobytes() == rest.tobytes()


@given(tensors())
def test_a_question_that_was_kept_is_read_as_it_was_asked(drawn: tuple[Dtype, np.ndarray]) -> None:
    dtype, array = drawn
    for bare in [True] if dtype is Dtype.FP16 else [True, False]:
        kept = question(array, dtype, bare=bare, name="x").SerializeToString()
        read = dialect.tensors_of(identity(dtype), kept)["x"]
        assert read.tolist() == array.tolist()
        assert read.dtype == array.dtype


@given(st.binary(max_size=200))
def test_bytes_that_are_no_question_are_the_callers_fault(asked, message: bytes) -> None:
    answer = asked("ModelInfer", message)
    assert isinstance(answer, bytes) or answer.code() not in OURS, answer


@given(st.data())
def test_a_damaged_question_is_the_callers_fault(asked, data: st.DataObject) -> None:
    dtype, array = data.draw(tensors())
    whole = bytearray(
        question(
            array, dtype, bare=dtype is Dtype.FP16 or data.draw(st.booleans()), model=dtype.value.lower(), name="x"
        ).SerializeToString()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        match data.draw(st.sampled_from(["set", "cut", "drop"])):
            case "set":
                whole[at] = data.draw(st.integers(0, 255))
            case "cut" if at:
                del whole[at:]
            case _ if len(whole) > 1:
                del whole[at]
    answer = asked("ModelInfer", bytes(whole))
    assert isinstance(answer, bytes) or answer.code() not in OURS, answer


LONG = 2**62


@st.composite
def questions(draw: st.DrawFn) -> pb.ModelInferRequest:
    """Questions of the right form with anything in them."""
    name = st.sampled_from(["x", "y", "", "input", "ü" * 5])
    parameter = st.builds(
        lambda kind, value: pb.InferParameter(**{kind: value}) if kind else pb.InferParameter(),
        st.sampled_from(["", "bool_param", "int64_param"]),
        st.sampled_from([0, 1]),
    )
    parameters = st.dictionaries(
        st.sampled_from(["classification", "timeout", "content_type", "shared_memory_region", "binary_data", "z"]),
        parameter,
        max_size=3,
    )
    asked = pb.ModelInferRequest(
        model_name=draw(st.sampled_from(["m", *(dtype.value.lower() for dtype in Dtype)])), id=draw(st.text(max_size=5))
    )
    for key, value in draw(parameters).items():
        asked.parameters[key].CopyFrom(value)
    for _ in range(draw(st.integers(0, 3))):
        one = asked.inputs.add(
            name=draw(name),
            datatype=draw(st.sampled_from([*(dtype.value for dtype in Dtype), "BF16", "", "fp32"])),
            shape=draw(st.lists(st.sampled_from([0, 1, 2, 3, -1, LONG, -LONG]), max_size=4)),
        )
        for key, value in draw(parameters).items():
            one.parameters[key].CopyFrom(value)
        for field in draw(st.lists(st.sampled_from(sorted(set(FIELDS.values()))), max_size=2)):
            getattr(one.contents, field).extend([b"a"] * 2 if field == "bytes_contents" else [1, 0])
    for _ in range(draw(st.integers(0, 2))):
        asked.outputs.add(name=draw(name))
        for key, value in draw(parameters).items():
            asked.outputs[-1].parameters[key].CopyFrom(value)
    asked.raw_input_contents.extend(draw(st.lists(st.binary(max_size=20), max_size=3)))
    return asked


@given(questions())
def test_a_question_with_anything_in_it_is_answered_or_the_callers_fault(asked, message: pb.ModelInferRequest) -> None:
    answer = asked("ModelInfer", message.SerializeToString())
    assert isinstance(answer, bytes) or answer.code() in {S.INVALID_ARGUMENT, S.DEADLINE_EXCEEDED}, answer


def bad(change: Callable[[pb.ModelInferRequest], object]) -> pb.ModelInferRequest:
    asked = pb.ModelInferRequest()
    asked.CopyFrom(ONE)
    change(asked)
    return asked


def typed(datatype: str, **contents: list) -> Callable[[pb.ModelInferRequest], object]:
    def change(asked: pb.ModelInferRequest) -> None:
        del asked.raw_input_contents[:]
        asked.inputs[0].datatype = datatype
        asked.inputs[0].contents.CopyFrom(pb.InferTensorContents(**contents))

    return change


BAD = {
    "typed and raw": lambda asked: asked.inputs[0].contents.fp64_contents.extend([1.0, 2.0]),
    "two raw contents for one input": lambda asked: asked.raw_input_contents.append(b""),
    "an input given twice": lambda asked: (
        asked.inputs.add().CopyFrom(asked.inputs[0]),
        asked.raw_input_contents.append(b"0" * 16),
    ),
    "too few bytes": lambda asked: asked.raw_input_contents.__setitem__(0, b"0" * 15),
    "too many bytes": lambda asked: asked.raw_input_contents.__setitem__(0, b"0" * 17),
    "a negative length": lambda asked: asked.inputs[0].shape.__setitem__(0, -1),
    "a huge shape": lambda asked: asked.inputs[0].shape.__setitem__(0, 2**62),
    "a shape of many axes": lambda asked: asked.inputs[0].shape.extend([1] * 40),
    "no shape": lambda asked: asked.inputs[0].ClearField("shape"),
    "no inputs": lambda asked: (asked.ClearField("inputs"), asked.ClearField("raw_input_contents")),
    "an unknown datatype": lambda asked: setattr(asked.inputs[0], "datatype", "FP8"),
    "BF16": lambda asked: setattr(asked.inputs[0], "datatype", "BF16"),
    "an unknown output": lambda asked: asked.outputs.add(name="no"),
    "classes of what has none": lambda asked: (
        asked.outputs.add(name="sum").parameters["classification"].__setattr__("int64_param", 2)
    ),
    "shared memory": lambda asked: asked.inputs[0].parameters["shared_memory_region"].__setattr__("string_param", "a"),
    "values of another kind": typed("FP64", fp32_contents=[1.0, 2.0]),
    "values of two kinds": typed("FP64", fp64_contents=[1.0, 2.0], int_contents=[1]),
    "no values": typed("FP64"),
    "values that do not fit": typed("INT8", int_contents=[1, 128]),
    "values below what fits": typed("INT16", int_contents=[1, -40_000]),
    "unsigned values that do not fit": typed("UINT8", uint_contents=[1, 256]),
    "FP16 that is typed": typed("FP16", fp32_contents=[1.0, 2.0]),
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD.keys())
async def test_what_is_wrong_is_refused_in_a_sentence(rpcs: Rpcs, change) -> None:
    error = await rpcs.refused("ModelInfer", bad(change))
    assert error.code() is S.INVALID_ARGUMENT
    assert error.details()


async def test_the_parameter_timeout_is_a_deadline(house, rpcs: Rpcs) -> None:
    house.gates["m-1"] = asyncio.Event()
    error = await rpcs.refused("ModelInfer", bad(lambda asked: setattr(asked.parameters["timeout"], "int64_param", 50_000)))
    assert error.code() is S.DEADLINE_EXCEEDED
    house.gates["m-1"].set()


async def test_outputs_are_named_and_come_in_the_order_asked_for(rpcs: Rpcs) -> None:
    answer = await rpcs.infer(
        bad(lambda asked: (asked.outputs.add(name="echo"), asked.outputs.add(name="sum"), setattr(asked, "id", "ü1")))
    )
    assert [one.name for one in answer.outputs] == ["echo", "sum"]
    assert (answer.id, answer.model_name, answer.model_version) == ("ü1", "m", "1")
    assert array_in(answer, 0).tolist() == [[1.0, 2.0]]


async def test_floats_that_are_no_numbers_pass_to_a_model_that_calculates(house) -> None:
    house_of = identity(Dtype.FP32)
    version = await house.serve("calc", house_of, echo)
    served = house.router.pool.get(version)
    served.version = served.version.__class__(
        **{name: getattr(served.version, name) for name in served.version.__struct_fields__} | {"framework": "onnxruntime"}
    )
    array = np.array([[np.nan, np.inf], [-np.inf, -0.0]], np.float32)
    async with rpcs_of(house) as rpcs:
        for bare in (True, False):
            answer = await rpcs.infer(question(array, Dtype.FP32, bare=bare, model="calc", name="x"))
            assert array_in(answer).tobytes() == array.tobytes()


async def test_best_classes_are_named(house, rpcs: Rpcs) -> None:
    signature = Signature((TensorSpec("x", Dtype.FP32, (-1, 3)),), (TensorSpec("y", Dtype.FP32, (-1, 3)),))
    await house.serve("scores", signature, echo, labels=("a", "b", "c"), scores="y")
    asked = question(np.array([[0.5, 0.25, 0.75]], np.float32), Dtype.FP32, model="scores", name="x")
    asked.outputs.add(name="y").parameters["classification"].int64_param = 2
    assert array_in(await rpcs.infer(asked)).tolist() == [[b"0.75:2:c", b"0.5:0:a"]]


async def test_a_large_message_of_very_many_tiny_tensors_is_refused_before_it_is_read(rpcs: Rpcs) -> None:
    error = await rpcs.refused("ModelInfer", b"\x2a\x00" * 1_000_000)
    assert error.code() is S.INVALID_ARGUMENT
    assert "too many" in error.details()


@pytest.mark.parametrize("many", ["outputs", "inputs"])
@pytest.mark.parametrize("tensors", [1, 2_000])
def test_very_many_fields_within_tensors_are_refused_before_they_are_read(many: str, tensors: int) -> None:
    asked = pb.ModelInferRequest(model_name="m", raw_input_contents=[bytes(300_000)])
    for _ in range(tensors):
        one = getattr(asked, many).add(name="y")
        for number in range(20_000 // tensors):
            one.parameters[str(number)].bool_param = True
    with pytest.raises(dialect.InvalidMessage, match="too many"):
        dialect.asked_in(asked.SerializeToString())


def test_the_values_of_a_large_tensor_are_not_counted_as_fields() -> None:
    asked = question(np.full((100_000, 1), "text", object), Dtype.BYTES, bare=False)
    asked.inputs[0].parameters["content_type"].string_param = "str"
    assert dialect.asked_in(asked.SerializeToString()) == asked


async def test_a_question_of_many_rows_is_answered(rpcs: Rpcs) -> None:
    array = np.arange(7_800, dtype=np.float64).reshape(-1, 2)
    for bare in (True, False):
        answer = await rpcs.infer(question(array, bare=bare))
        assert array_in(answer, 1).tobytes() == array.tobytes()


async def test_what_is_kept_is_the_messages_themselves(house, rpcs: Rpcs) -> None:
    asked = question(np.array([[1.0, 2.0]]), bare=False)
    answer = await rpcs.ask("ModelInfer", asked)
    (record,) = house.records
    assert record.inputs == asked.SerializeToString()
    assert record.outputs == answer
    assert "json" not in record.content_type
    assert "json" not in record.answer_type
    assert dialect.answer_of(record.outputs) == {"sum": [3.0], "echo": [[1.0, 2.0]]}
    await rpcs.refused("ModelInfer", bad(BAD["too few bytes"]))
    assert [one.outcome for one in house.records] == ["ok", "rejected"]


@given(st.binary(max_size=100))
def test_an_answer_that_was_damaged_is_no_answer(body: bytes) -> None:
    try:
        found = dialect.answer_of(body)
    except (ValueError, dialect.InvalidInput):
        return
    json.dumps(found)
