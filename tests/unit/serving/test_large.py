"""Large bodies and answers: they hold nobody up, are the same as if nobody had minded, and there are never too many of them."""

import asyncio
import hashlib
import io
import json
import math
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fixtures.large import Watched
from fixtures.standings import through
from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import ModelkeepError
from modelkeep.contracts.signature import DATETIME, EXACT, FLOATS, Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import DeploymentSettings, Recording, ServedKey
from modelkeep.sandbox import control
from modelkeep.serving import csv_rows, matrix
from modelkeep.serving.calls import Call, Run, Share
from modelkeep.serving.codec import PIECE, values_of
from modelkeep.serving.coercion import from_text
from modelkeep.serving.large import LARGE, LARGE_ANSWER, SWITCH_S, Large, TooMuchAtOnce
from modelkeep.serving.messages import ClientGone, Request, Response

PREDICT = "/api/v1/predict/m"
SMALL = {"inputs": [[1, 2]]}
ROWS = np.arange(120_000, dtype=np.float64).reshape(-1, 2) / 7
MANY = 5
"""Turns of the event loop, which takes none while it reads or writes itself; usually there are thousands."""


@pytest.fixture(autouse=True)
def _as_in_a_server() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    yield
    sys.setswitchinterval(before)


def npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def as_csv() -> bytes:
    return "\n".join(f"{a!r},{b!r}" for a, b in ROWS.tolist()).encode()


def as_json(**body: Any) -> bytes:
    return msgspec.json.encode(body)


V2 = [{"name": "input", "shape": list(ROWS.shape), "datatype": "FP64", "data": ROWS.reshape(-1).tolist()}]
RECORDS = [{"a": a, "b": b} for a, b in ROWS.tolist()]
SPLIT = {"columns": ["b", "a"], "data": ROWS[:, ::-1].tolist()}
BODIES: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "native, plain rows": (PREDICT, "application/json", lambda: as_json(inputs=ROWS.tolist())),
    "native, records": (PREDICT, "application/json", lambda: as_json(inputs=RECORDS)),
    "native, columns": (PREDICT, "application/json", lambda: as_json(inputs=dict(zip("ab", ROWS.T.tolist(), strict=True)))),
    "v2": ("/v2/models/m/infer", "application/json", lambda: as_json(inputs=V2)),
    "v1": ("/v1/models/m:predict", "application/json", lambda: as_json(instances=ROWS.tolist())),
    "MLflow, split": ("/invocations", "application/json", lambda: as_json(dataframe_split=SPLIT)),
    "MLflow, records": ("/invocations", "application/json", lambda: as_json(dataframe_records=RECORDS)),
    "MLflow, csv": ("/invocations", "text/csv; header=absent", as_csv),
}


def sums_of(path: str, answer: Any) -> Any:
    match path:
        case "/v2/models/m/infer":
            return answer["outputs"][0]["data"]
        case "/v1/models/m:predict" | "/invocations":
            return [row["sum"] for row in answer["predictions"]]
        case _:
            return answer["outputs"]["sum"]


@pytest.mark.parametrize("form", BODIES)
async def test_while_a_large_body_is_read_and_its_answer_written_the_event_loop_goes_on(house, form: str) -> None:
    await house.serve("m")
    path, content_type, body = BODIES[form]
    answer = await house.client.post(path, content=body(), headers={"content-type": content_type})
    assert answer.status_code == 200, answer.text[:300]
    assert sums_of(path, answer.json()) == ROWS.sum(axis=1).tolist()
    read, written = house.large.turns
    assert (read > MANY, written > MANY) == (True, True), house.large.turns


async def test_an_array_and_pictures_are_read_aside_too(house, images) -> None:
    await house.serve("m")
    answer = await house.client.post("/invocations", content=npy(ROWS), headers={"content-type": "application/x-npy"})
    assert [row["sum"] for row in answer.json()["predictions"]] == ROWS.sum(axis=1).tolist()
    assert len(house.large.turns) == 2
    await house.serve("pictures", images.signature, images.compute)
    answer = await house.client.post(
        "/v1/models/pictures:predict", json={"instances": [{"b64": "YWJj" * 200_000}], "signature_name": "serving_default"}
    )
    assert answer.json() == {"predictions": [[200_000.0, 200_000.0, 200_000.0, 0.0]]}
    assert len(house.large.turns) == 3  # the answer is small


async def test_others_are_answered_while_a_large_body_waits(house) -> None:
    await house.serve("m")
    house.large.gate.clear()
    large = asyncio.create_task(house.client.post(PREDICT, content=as_json(inputs=ROWS.tolist())))
    while not house.large._held:
        await asyncio.sleep(0)
    answers = [await house.client.post(PREDICT, json=SMALL) for _ in range(10)]
    assert [answer.json()["outputs"]["sum"] for answer in answers] == [[3.0]] * 10
    assert not large.done()
    house.large.gate.set()
    assert (await large).status_code == 200


async def test_what_is_not_large_is_read_and_written_at_once(house) -> None:
    await house.serve("m")
    body = as_json(inputs=ROWS[:100].tolist())
    answer = await house.client.post(PREDICT, content=body + b" " * (LARGE - len(body)))
    assert (answer.status_code, house.large.turns) == (200, [])
    answer = await house.client.post(PREDICT, content=body + b" " * (LARGE - len(body) + 1))
    assert (answer.status_code, len(house.large.turns)) == (200, 1)
    rows = LARGE_ANSWER // 3
    answer = await house.client.post("/invocations", content=npy(ROWS[:rows]), headers={"content-type": "application/x-npy"})
    assert (answer.status_code, len(house.large.turns)) == (200, 1)
    answer = await house.client.post(
        "/invocations", content=npy(ROWS[: rows + 1]), headers={"content-type": "application/x-npy"}
    )
    assert (answer.status_code, len(house.large.turns)) == (200, 2)


async def test_what_is_wrong_with_a_large_body_is_told_as_with_any_other(house) -> None:
    await house.serve("m")
    rows = ROWS.tolist()
    rows[50_000][1] = "x"
    answer = await house.client.post(PREDICT, content=as_json(inputs=rows))
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "inputs[50000][1]")
    answer = await house.client.post(PREDICT, content=b"[" * LARGE * 2)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")
    assert [(record.outcome, record.code) for record in house.records] == [
        ("rejected", "invalid_input"),
        ("rejected", "invalid_json"),
    ]


async def test_of_a_large_prediction_is_kept_what_policy_says_and_made_ready_aside(house) -> None:
    house.settings["m"] = DeploymentSettings(recording=Recording(inputs="hash", fields={"sum": "drop", "b": "drop"}))
    await house.serve("m")
    body = as_json(inputs=ROWS.tolist())
    for content in (body, as_json(inputs=ROWS[:2].tolist())):
        assert (await house.client.post(PREDICT, content=content)).status_code == 200
    large, small = house.records
    assert large.input_note.startswith("too large: ")
    assert large.output_note.startswith("too large: ")
    assert (small.input_note, small.output_note) == ("by field", "by field")
    assert json.loads(small.inputs).keys() == {"a"}
    assert json.loads(small.outputs).keys() == {"echo"}
    house.settings["m"] = DeploymentSettings(recording=Recording(inputs="hash", outputs="hash"))
    house.publish()
    answer = await house.client.post(PREDICT, content=body)
    kept = house.records[-1]
    assert (kept.inputs, kept.input_note) == (b'"%s"' % hashlib.sha256(body).hexdigest().encode(), "hashed")
    assert (kept.outputs, kept.output_note) == (b'"%s"' % hashlib.sha256(answer.content).hexdigest().encode(), "hashed")


async def test_more_than_may_wait_is_refused_at_once(open_house) -> None:
    body = as_json(inputs=ROWS.tolist())
    house = open_house(large=Watched(most_bytes=2 * len(body)))
    await house.serve("m")
    house.large.gate.clear()
    taken = [asyncio.create_task(house.client.post(PREDICT, content=body)) for _ in range(2)]
    while house.large._held < 2 * len(body):
        await asyncio.sleep(0)
    refused = await house.client.post(PREDICT, content=body)
    assert (refused.status_code, refused.json()["code"]) == (503, "large_requests")
    assert "retry-after" in refused.headers
    assert (await house.client.post(PREDICT, json=SMALL)).status_code == 200
    taken.append(asyncio.create_task(house.client.post(PREDICT, content=body, headers={"x-api-key": "predict"})))
    while house.large._held < 3 * len(body):  # another person's is taken
        await asyncio.sleep(0)
    house.large.gate.set()
    assert {(await one).status_code for one in taken} <= {200, 503}
    await all_done(house)
    assert (await house.client.post(PREDICT, content=body)).status_code == 200  # one alone may hold as much as it needs


async def test_an_answer_that_ran_and_cannot_be_written_is_told_counted_and_kept_as_such(house) -> None:
    await house.serve("m")
    large, small = (npy(ROWS[:rows]) for rows in (LARGE_ANSWER // 3 + 1, 1))
    assert len(large) <= LARGE
    house.large.gate.clear()
    house.large.do("usr_all", 1 << 30, lambda: None, lambda _done: None)  # as much as may wait, by the person who asks
    ask = partial(house.client.post, "/invocations", headers={"content-type": "application/x-npy"})
    refused = await ask(content=large)
    assert (refused.status_code, refused.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert "retry-after" in refused.headers
    (record,) = house.records
    assert (record.outcome, record.code, record.status, record.inputs) == ("error", "large_answers", 503, large)
    text = house.metrics.text().decode()
    labels = '{deployment="m",version="1",outcome="error"}'
    assert f"modelkeep_predictions_total{labels} 1" in text
    assert 'modelkeep_batch_requests_count{deployment="m"} 1' in text
    assert "modelkeep_queue_rejected_total{" not in text
    assert house.metrics.statistics.of([("m", "1")])[0].failed == 1
    assert (await ask(content=small)).status_code == 200
    other = asyncio.create_task(ask(content=large, headers={**ask.keywords["headers"], "x-api-key": "predict"}))
    while house.large._held == 1 << 30:  # another key's answer is taken
        await asyncio.sleep(0)
    house.large.gate.set()
    assert (await other).status_code == 200
    await all_done(house)


async def test_the_deadline_of_a_large_body_passes_while_it_waits(house) -> None:
    await house.serve("m")
    house.large.gate.clear()
    answer = await house.client.post(PREDICT, content=as_json(inputs=ROWS.tolist()), headers={"x-request-timeout": "0.02"})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert house.router.find("m").underway.count == 0
    house.large.gate.set()
    assert (await house.client.post(PREDICT, json=SMALL)).status_code == 200
    await all_done(house)


async def all_done(house) -> None:
    """Wait until nothing large is read or written; then no version is kept for it."""
    while house.large._held:
        await asyncio.sleep(0)
    assert all(served.batcher.idle for served in house.router.pool.all())


@pytest.mark.parametrize("named", [None, "live"])
async def test_a_version_that_is_replaced_while_a_large_body_is_read_stays_until_it_has_answered(
    house, named: str | None
) -> None:
    """Of a promotion and of an alias that moves; the supervisor ends the runners of what is not wanted any more."""

    async def replaced_by(number: int) -> None:
        if named is None:
            await house.serve("m", number=number)
        else:
            await house.alias("m", named, number)
        assert house.router.find("m", named).number == str(number)

    def wanted() -> set[str]:
        want = next(message for message in reversed(house.sent) if isinstance(message, control.Want))
        return {one.spec.version_id for one in want.specs}

    house.settings["m"] = DeploymentSettings(bake_s=0)
    await house.serve("m")
    await replaced_by(2)
    house.large.gate.clear()
    headers = {} if named is None else {"x-modelkeep-version": named}
    large = asyncio.create_task(house.client.post(PREDICT, content=as_json(inputs=ROWS.tolist()), headers=headers))
    while not house.large._held:
        await asyncio.sleep(0)
    await replaced_by(3)
    if "m-2" not in wanted():
        house.router.pool.take(control.Leave("m-2"), [])
    house.large.gate.set()
    answer = await asyncio.wait_for(large, 10)
    assert (answer.status_code, answer.headers.get("x-model-version")) == (200, "2")
    await all_done(house)
    house.router.tend()
    assert "m-2" not in wanted()


class Told:
    """Asks the engine for a prediction of a large body, as a door does, and hears what becomes of it."""

    def __init__(self, house, *, breaks: bool = False) -> None:
        self.breaks = breaks
        self.answer: asyncio.Future[Response | Exception] = asyncio.get_running_loop().create_future()
        self.gone: Callable[[], None] | None = None
        self.threads: list[int] = []
        request = Request("POST", PREDICT, (), connection=self)  # type: ignore[arg-type]
        request.key = ServedKey("k", b"", "k", through(Scope.PREDICT))
        house.engine.predict_whole("m", request, "native", b" " * (LARGE + 1), read=self.read, tell=self.answer.set_result)

    def read(self, call: Call) -> None:
        self.threads.append(threading.get_ident())
        if self.breaks:
            raise ZeroDivisionError
        call.ask({"input": np.ones((1, 2))}, lambda _call, share: Response(200, msgspec.json.encode(share.values("sum"))))


async def test_a_large_body_without_asgi_is_read_aside_and_answered(house) -> None:
    await house.serve("m")
    one = Told(house)
    answer = await one.answer
    assert isinstance(answer, Response)
    assert answer.body == b"[2.0]"
    assert one.threads != [threading.get_ident()]
    assert house.router.find("m").underway.count == 0


async def test_the_body_of_whoever_has_left_is_not_read(house) -> None:
    await house.serve("m")
    house.large.gate.clear()
    one = Told(house)
    assert one.gone is not None
    one.gone()
    assert isinstance(await one.answer, ClientGone)
    house.large.gate.set()
    await all_done(house)
    assert one.threads == []


async def test_what_breaks_in_a_thread_is_told(house) -> None:
    await house.serve("m")
    answer = await Told(house, breaks=True).answer
    assert isinstance(answer, ZeroDivisionError)
    assert house.router.find("m").underway.count == 0
    await all_done(house)


class Watching:
    """What is done large, one at a time, held up by a gate; and whose was done, in turn."""

    def __init__(self, large: Large) -> None:
        self.large = large
        self.done: list[str] = []
        self.asked = 0
        self.gate = threading.Event()

    def do(self, owner: str, size: int = 1) -> None:
        def heard(result: object) -> None:
            assert result is True
            self.done.append(owner)

        self.large.do(owner, size, lambda: self.gate.wait(30), heard)
        self.asked += 1

    def refuses(self, owner: str, size: int) -> None:
        with pytest.raises(TooMuchAtOnce):
            self.do(owner, size)

    async def end(self) -> None:
        self.gate.set()
        while len(self.done) < self.asked:
            await asyncio.sleep(0)
        assert not self.large._holders
        assert not self.large._waiting


async def test_work_is_bounded_by_its_bytes() -> None:
    one = Watching(Large(most_bytes=10))
    one.do("a", 11)
    one.refuses("a", 1)
    await one.end()
    one.do("a", 10)
    await one.end()


async def test_what_fails_in_a_thread_is_told() -> None:
    large, told = Large(), asyncio.get_running_loop().create_future()
    large.do("a", 1, lambda: 1 // 0, told.set_result)
    assert isinstance(await told, ZeroDivisionError)
    assert not large._held


async def test_callers_take_turns_at_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelkeep.serving.large._THREADS", 1)
    one = Watching(Large())
    for owner in ("a", "a", "a", "a", "b", "b", "c"):
        one.do(owner)
        while one.asked == 1 and one.large._waiting:  # until the first one is under way
            await asyncio.sleep(0)
    await one.end()
    assert one.done == ["a", "a", "b", "c", "a", "b", "a"]


async def test_where_one_caller_holds_all_others_are_taken_by_their_share() -> None:
    one = Watching(Large(most_bytes=10))
    one.do("a", 6)
    one.do("a", 4)
    one.refuses("a", 1)
    one.do("b", 4)
    one.do("b", 1)
    one.refuses("b", 1)
    one.do("c", 4)
    one.refuses("d", 2)  # twice the bound is held
    one.do("d", 1)
    await one.end()


# ---- piece by piece

SPEC = TensorSpec("x", Dtype.FP64, (-1, -1))
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(st.lists(FINITE | st.integers(-9, 9), min_size=2, max_size=2), min_size=1),
    st.sampled_from(["", " ", "\n\t "]),
    st.integers(1, 40),
)
def test_rows_read_in_pieces_are_those_read_at_once(rows: list[list[float]], blank: str, piece: int) -> None:
    raw = json.dumps(rows).replace("]", f"{blank}]{blank}").replace("[", f"{blank}[{blank}").encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix, "_PIECE", piece)
        plain = all(math.hypot(*row) < EXACT for row in rows)  # others may have had more digits
        assert matrix.plain_rows(SPEC, raw) == (rows if plain else None)


@given(st.lists(FINITE, min_size=1, max_size=5), st.integers(EXACT, 10**300) | st.integers(-(10**300), -EXACT), st.data())
def test_what_may_have_been_a_whole_number_with_more_digits_is_not_read_as_a_float(
    row: list[float], whole: int, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(row)))
    assert matrix.plain_rows(SPEC, json.dumps([[*row[:at], whole, *row[at:]]]).encode()) is None


@given(st.recursive(FINITE | st.text('],[" 1'), lambda one: st.lists(one, max_size=3), max_leaves=12))
def test_only_rows_of_floats_are_read_in_pieces(value: object) -> None:
    raw = msgspec.json.encode(value)
    whole = matrix.plain_rows(SPEC, raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix, "_PIECE", 1)
        assert matrix.plain_rows(SPEC, raw) == whole


def test_a_value_that_the_datatype_has_not_is_named_in_long_rows() -> None:
    signature = Signature((TensorSpec("x", Dtype.FP32, (-1, 2)),))
    rows = [[1.0, 2.0]] * 5000
    assert matrix.Matrix(signature, rows).tensors()["x"].tolist() == rows
    with pytest.raises(ModelkeepError, match=r"inputs\[4999\]\[1\]"):
        matrix.Matrix(signature, [*rows[1:], [1.0, 1e300]]).tensors()


@given(st.integers(1, 5), st.integers(0, 3), st.integers(1, 4), st.booleans())
def test_a_large_answer_is_the_json_of_a_small_one(rows: int, axes: int, width: int, texts: bool) -> None:
    array: np.ndarray[Any, Any] = np.arange(rows * width**axes, dtype=np.float64).reshape(rows, *[width] * axes) / 3
    if texts:
        array = array.astype(str).astype(object)
    run = Run({"y": array}, 0.0)
    values = Share(run, 0, rows).values("y")
    run.large = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modelkeep.serving.calls.PIECE", 3)
        patch.setattr("modelkeep.serving.codec.PIECE", 3)
        share = Share(run, 0, rows)
        assert values_of(array) == values
        assert msgspec.json.encode(share.json(values)) == msgspec.json.encode(values)


def test_rows_that_are_long_themselves_are_written_in_pieces() -> None:
    run = Run({"y": np.zeros((10, 3 * PIECE))}, 0.0)
    run.large = True
    whole = Share(run, 2, 9)
    assert json.loads(msgspec.json.encode(whole.json(whole.values("y")))) == [[0.0] * 3 * PIECE] * 7


CELLS = st.text("0123456789.eE+-,_ naif\u0661", max_size=6) | FINITE.map(repr) | st.integers().map(str)
COLUMNS = [TensorSpec("c", dtype, (-1,)) for dtype in Dtype] + [TensorSpec("d", Dtype.BYTES, (-1,), kind=DATETIME)]


@example(["1", "1_0"], TensorSpec("c", Dtype.FP32, (-1,)))
@example(["1", " 1"], TensorSpec("c", Dtype.INT64, (-1,)))
@example(["2", "nan", "inf"], TensorSpec("c", Dtype.FP32, (-1,)))
@given(st.lists(CELLS, max_size=5), st.sampled_from(COLUMNS))
def test_cells_read_together_are_those_read_one_by_one(cells: list[str], spec: TensorSpec) -> None:
    one_by_one = [from_text(cell, spec.dtype, spec.kind) for cell in cells]
    together = csv_rows._read(cells, spec)
    if spec.dtype in FLOATS:
        one_by_one = [float(one) if isinstance(one, int) and abs(one) < 2**1000 else one for one in one_by_one]
        together = [float(one) if isinstance(one, int) and abs(one) < 2**1000 else one for one in together]
    assert together == one_by_one
