"""What is kept and hashed of a prediction is the same, whether a thread read its body or the event loop did."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelkeep.contracts.prediction import PredictionRecord
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import DeploymentSettings, Keep, Recording

INPUT = "input"
COLUMNS = ("a", "b")
OUTPUTS = (TensorSpec("sum", Dtype.FP32, (-1,)),)
SIGNATURES = {
    "columns": Signature((TensorSpec(INPUT, Dtype.FP32, (-1, 2), columns=COLUMNS),), OUTPUTS),
    "matrix": Signature((TensorSpec(INPUT, Dtype.FP32, (-1, 2)),), OUTPUTS),
    "doubles": Signature((TensorSpec(INPUT, Dtype.FP64, (-1, 2)),), OUTPUTS),
}
NEVER = 1 << 40

Asked = Callable[[str, bytes, Recording, int], PredictionRecord]


@pytest.fixture(scope="module")
def asked(module_house, refuse: type[Exception], tmp_path_factory) -> Iterator[Asked]:
    """Ask one of the models, by a policy, with bodies above so many bytes read in threads; returns what was written down."""

    def compute(inputs: dict[str, Any]) -> dict[str, Any]:
        array = inputs[INPUT]
        if array[0, 0] < 0:
            raise refuse("model_failed", "stack")
        return {"sum": array.sum(axis=1)}

    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:

        async def make() -> Any:
            house = module_house(tmp_path_factory.mktemp("run"))
            for name, signature in SIGNATURES.items():
                await house.serve(name, signature, compute)
            return house

        house = runner.run(make())

        async def ask(name: str, body: bytes, recording: Recording, large: int) -> PredictionRecord:
            patch.setattr("modelkeep.serving.engine.LARGE", large)
            house.settings[name] = DeploymentSettings(recording=recording)
            house.publish()
            house.records.clear()
            turns = len(house.large.turns)
            await house.client.post(f"/v1/models/{name}:predict", content=body)
            assert len(house.large.turns) - turns == (large != NEVER)
            (record,) = house.records
            return record

        yield lambda *question: runner.run(ask(*question))
        runner.run(house.close())


KEEPS = st.sampled_from(("keep", "hash", "drop"))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.floats(width=32, allow_nan=False, allow_infinity=False)
VALUES = NUMBERS | st.integers(-9, 1 << 54) | st.sampled_from((0.1, 1e39, -0.0, 5e-324, "x", None))


@example("columns", [[0.1, 1.0]], {"a": "hash"}, "keep", "keep")
@example("matrix", [[-0.1, 1.0]], {"sum": "keep"}, "hash", "keep")  # which the model refuses, once it has been converted
@given(
    st.sampled_from(sorted(SIGNATURES)),
    st.lists(st.lists(VALUES, min_size=2, max_size=2), min_size=1, max_size=4),
    st.dictionaries(st.sampled_from((*COLUMNS, INPUT, "sum")), KEEPS),
    KEEPS,
    KEEPS,
)
def test_what_is_kept_and_hashed_is_the_same_whichever_way_a_body_is_read(
    asked: Asked, name: str, rows: list[list[Any]], fields: dict[str, Keep], inputs: Keep, outputs: Keep
) -> None:
    body = msgspec.json.encode({"instances": rows})
    recording = Recording(inputs=inputs, outputs=outputs, fields=fields)
    small, large = (asked(name, body, recording, bound) for bound in (NEVER, 0))
    assert kept(large) == kept(small)


def kept(record: PredictionRecord) -> tuple[object, ...]:
    return (
        *(record.outcome, record.code, record.rows),
        *(record.inputs, record.input_note, record.outputs, record.output_note),
    )


def test_the_hash_of_a_number_is_that_of_the_number_that_was_sent(asked: Asked) -> None:
    record = asked("columns", b'{"instances": [[0.1, 2.0]]}', Recording(fields={"a": "hash"}), 0)
    assert json.loads(record.inputs or b"") == {"a": [hashlib.sha256(b"0.1").hexdigest()], "b": [2.0]}
