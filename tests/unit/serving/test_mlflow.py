"""MLflow's scoring protocol through the whole door, down to a runner's socket and back."""

import json
import re

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.signatures import ANYTHING
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import DeploymentSettings
from modelkeep.sandbox import control
from modelkeep.serving.dialects.scoring import FORMS

INVOCATIONS = "/invocations"
DATABRICKS = "/serving-endpoints/m/invocations"
SPLIT = {"dataframe_split": {"columns": ["a", "b"], "index": [0, 1], "data": [[1, 2], [3, 4.5]]}}
ROWS = {"instances": [[1, 2], [3, 4.5]]}
ANSWER = [{"sum": 3.0, "echo": [1.0, 2.0]}, {"sum": 7.5, "echo": [3.0, 4.5]}]
CLASSES = Signature(
    (TensorSpec("input", Dtype.FP32, (-1, 2), columns=("a", "b")),),
    (TensorSpec("label", Dtype.INT64, (-1,)), TensorSpec("scores", Dtype.FP32, (-1, 3))),
)
CSV = {"content-type": "text/csv"}


def classify(inputs: dict) -> dict:
    label = inputs["input"][:, 0].astype(np.int64)
    return {"label": label, "scores": np.where(np.arange(3) == label[:, None], 0.5, 0.25).astype(np.float32)}


def refused(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error that is whole, and says no more than it should."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"error_code", "message"}
    assert answer.headers["x-request-id"]
    return answer.status_code, answer.json()["error_code"]


@pytest.mark.parametrize("path", [INVOCATIONS, DATABRICKS])
async def test_rows_in_any_form_are_answered_with_a_row_each(house, path: str) -> None:
    await house.serve("m", number=7)
    for form in (
        SPLIT,
        ROWS,
        {"inputs": {"a": [1, 3], "b": [2, 4.5]}},
        {"dataframe_records": [{"a": 1, "b": 2}, {"b": 4.5, "a": 3}]},
    ):
        answer = await house.client.post(path, json=form)
        assert (answer.status_code, answer.json()) == (200, {"predictions": ANSWER})
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-model-version"] == "7"
        assert re.fullmatch("prd_[0-9A-Z]{26}", answer.headers["x-prediction-id"])
    answer = await house.client.post(path, content="b,a\r\n2,1\r\n4.5,3\r\n", headers=CSV)
    assert (answer.status_code, answer.json()) == (200, {"predictions": ANSWER})


async def test_the_same_rows_have_the_same_bits_as_by_the_native_dialect(house) -> None:
    await house.serve("m")
    rows = [[0.1, 1 / 3], [1e-320, 1.7976931348623157e308], [-0.0, 2.0**60]]
    native = (await house.client.post("/api/v1/predict/m", json={"inputs": rows})).json()["outputs"]["echo"]
    text = "a,b\n" + "".join(f"{a!r},{b!r}\n" for a, b in rows)
    answers = [
        await house.client.post(
            INVOCATIONS, json={"dataframe_split": {"columns": ["b", "a"], "data": [row[::-1] for row in rows]}}
        ),
        await house.client.post(INVOCATIONS, json={"dataframe_split": {"columns": ["a", "b"], "data": rows}}),
        await house.client.post(INVOCATIONS, content=text, headers=CSV),
    ]
    for answer in answers:
        echoed = [row["echo"] for row in answer.json()["predictions"]]
        assert np.array(echoed).tobytes() == np.array(native).tobytes()


async def test_one_output_is_answered_bare_and_several_as_objects(house) -> None:
    await house.serve("m", CLASSES, classify, scores="scores", labels=("zero", "one", "two"))
    ask = {"instances": [[2, 0], [0, 0]]}
    answer = await house.client.post(INVOCATIONS, json=ask)
    assert answer.json()["predictions"][0] == {"label": 2, "scores": [0.25, 0.25, 0.5]}
    answer = await house.client.post(INVOCATIONS, json=ask | {"params": {"outputs": ["label"]}})
    assert answer.json() == {"predictions": [2, 0]}
    answer = await house.client.post(INVOCATIONS, json=ask | {"params": {"top_k": 1}})
    assert answer.json()["predictions"][0] == [{"label": "two", "index": 2, "score": 0.5}]


async def test_params_that_the_model_has_no_use_for_are_refused(house) -> None:
    await house.serve("m")
    for params in ({"temperature": 1}, {"top_k": 3}, {"outputs": ["label"]}):
        assert refused(await house.client.post(INVOCATIONS, json=ROWS | {"params": params})) == (400, "BAD_REQUEST")


async def test_what_is_no_number_is_answered_as_its_deployment_says(house) -> None:
    house.settings["m"] = DeploymentSettings(not_finite="refuse")
    odd = {"sum": np.array([np.nan]), "echo": np.zeros((1, 2))}
    await house.serve("m", compute=lambda _inputs: odd)
    assert refused(await house.client.post(INVOCATIONS, json={"instances": [[1, 2]]})) == (500, "INTERNAL_ERROR")
    house.settings["m"] = DeploymentSettings()
    house.publish()
    answer = await house.client.post(INVOCATIONS, json={"instances": [[1, 2]]})
    assert answer.json()["predictions"] == [{"sum": None, "echo": [0, 0]}]


async def test_the_model_is_chosen_by_name_by_host_or_by_default(open_house) -> None:
    house = open_house(default_model="n", hosts="One.example.org = m, two.example.org:8080=o , ::1=m")
    for name, number in (("m", 1), ("n", 2), ("o", 3)):
        await house.serve(name, number=number)

    async def chosen(path: str = INVOCATIONS, **headers: str) -> str:
        answer = await house.client.post(path, json=ROWS, headers=headers)
        assert answer.status_code == 200
        return answer.headers["x-model-version"]

    assert await chosen() == "2"
    assert await chosen(host="elsewhere.example.org") == "2"
    assert await chosen(host="one.EXAMPLE.org:5000") == "1"
    assert await chosen(host="two.example.org.") == "3"
    assert await chosen(host="[::1]:5000") == "1"
    assert await chosen(host="one.example.org", **{"x-modelkeep-model": "o"}) == "3"
    assert await chosen("/invocations?model=o", host="one.example.org") == "3"
    assert await chosen("/serving-endpoints/n/invocations", host="one.example.org") == "2"


async def test_of_several_models_none_is_guessed(house) -> None:
    assert refused(await house.client.post(INVOCATIONS, json=ROWS)) == (404, "RESOURCE_DOES_NOT_EXIST")
    await house.serve("m")
    assert (await house.client.post(INVOCATIONS, json=ROWS)).status_code == 200
    await house.serve("n")
    answer = await house.client.post(INVOCATIONS, json=ROWS)
    assert refused(answer) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert "X-Modelkeep-Model" in answer.json()["message"]


async def test_ping_says_whether_the_chosen_model_answers_and_needs_no_key(open_house) -> None:
    house = open_house(hosts="one.example.org=m")
    house.client.headers.pop("x-api-key")

    async def ping(**headers: str) -> int:
        return (await house.client.get("/ping", headers=headers)).status_code

    assert await ping() == 404
    version = await house.serve("m", wait=False)
    assert await ping() == 503
    await house.connect(version)
    assert await ping() == 200
    await house.serve("n", wait=False)
    assert await ping() == 404
    assert await ping(host="one.example.org:80") == 200
    assert await ping(**{"x-modelkeep-model": "m"}) == 404, "whoever has no key learns no names"
    house.router.pool.take(control.Held(version, 60, "it ended with status 3"), [])
    assert (await house.client.head("/ping")).status_code == 404
    answer = await house.client.get("/version")
    assert (answer.status_code, answer.text) == (200, "9.9")


async def test_who_has_no_key_is_told_in_the_protocols_words(house) -> None:
    await house.serve("m")
    for path in (INVOCATIONS, DATABRICKS, "/serving-endpoints/nobody/invocations"):
        for key, wanted in (
            ("", (401, "UNAUTHENTICATED")),
            ("nobody", (401, "UNAUTHENTICATED")),
            ("read", (403, "PERMISSION_DENIED")),
        ):
            assert refused(await house.client.post(path, json=ROWS, headers={"x-api-key": key})) == wanted


async def test_what_there_is_not_is_refused(open_house) -> None:
    house = open_house(max_body_mb=1)
    await house.serve("m")
    post = house.client.post
    assert refused(await post("/serving-endpoints/n/invocations", json=ROWS)) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert refused(await post("/serving-endpoints/m/queries", json=ROWS)) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert refused(await post("/invocations/m", json=ROWS)) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert refused(await post("/ping")) == (405, "BAD_REQUEST")
    assert refused(await house.client.get(INVOCATIONS)) == (405, "BAD_REQUEST")
    assert refused(await post(INVOCATIONS, content=b" " * (1024 * 1024 + 1))) == (413, "BAD_REQUEST")
    assert refused(await post(INVOCATIONS, content="<x/>", headers={"content-type": "text/xml"})) == (415, "BAD_REQUEST")
    latin = {"content-type": "text/csv; charset=iso-8859-1"}
    assert refused(await post(INVOCATIONS, content="a,b\n1,2", headers=latin)) == (415, "BAD_REQUEST")


async def test_a_model_that_fails_or_is_late_is_told_without_its_words(house, refuse) -> None:
    def fail(_inputs: dict) -> dict:
        raise refuse("model_failed", "secret words of the model")

    await house.serve("m", compute=fail)
    answer = await house.client.post(INVOCATIONS, json=ROWS)
    assert refused(answer) == (500, "INTERNAL_ERROR")
    assert "Traceback" not in answer.text
    version = await house.serve("n", wait=False)
    house.router.pool.take(control.Held(version, 42, "it ended with status 3"), [])
    answer = await house.client.post("/serving-endpoints/n/invocations", json=ROWS)
    assert refused(answer) == (503, "TEMPORARILY_UNAVAILABLE")
    assert answer.headers["retry-after"] == "42"


async def test_databricks_names_a_request_in_its_body(house) -> None:
    await house.serve("m")
    answer = await house.client.post(DATABRICKS, json=ROWS | {"client_request_id": "order-17"})
    assert answer.headers["x-request-id"] == "order-17"
    assert house.records[-1].request_id == "order-17"
    assert answer.json() == {"predictions": ANSWER}
    for odd in ("two words", "x" * 200, "", None):
        answer = await house.client.post(DATABRICKS, json=ROWS | {"client_request_id": odd})
        assert answer.status_code == 200
        assert answer.headers["x-request-id"].startswith("req_")
    assert refused(await house.client.post(DATABRICKS, json=ROWS | {"client_request_id": 17})) == (400, "BAD_REQUEST")
    assert refused(await house.client.post(INVOCATIONS, json=ROWS | {"client_request_id": "x"})) == (400, "BAD_REQUEST")


FIELDS = st.sampled_from([*FORMS, "params", "columns", "data", "index"])
JSON = st.dictionaries(FIELDS, ANYTHING | st.dictionaries(FIELDS, ANYTHING, max_size=3), max_size=3).map(
    lambda value: json.dumps(value).encode()
)
HOSTILE = [
    b"",
    b"null",
    b"[" * 1_000_000,
    b'{"instances": ' + b"[" * 1_000_000,
    b'{"dataframe_split": {"data": ' + b"[" * 1_000_000,
    b'{"instances": [[NaN, ' + b"[" * 100_000,
    b'{"instances": [[NaN, ' + b"9" * 10_000 + b"]]}",
    b'{"instances": [[1e400, 1]]}',
    b'{"instances": [["\xff", 1]]}',
    b'{"dataframe_records": [{"a": "\\ud800", "b": NaN}]}',
    b"\x00" * 1000,
    b"a,b\n" + b"\n" * 1_000_000 + b"1,2",
    b"a,b\n" + b"," * 1_000_000,
    b"," * 1_000_000,
    b'"' * 1_000_001,
    b"\x93NUMPY\x01\x00v\x00" + b"{" * 118,
]
TYPES = [b"application/json", b"text/csv", b"application/x-npy", b"application/json; charset=\xff", b";;;=", b""]


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("path", [INVOCATIONS, DATABRICKS, "/endpoints/m/invocations"])
def test_no_hostile_body_is_our_fault(served_once, path: str, content_type: bytes) -> None:
    for body in HOSTILE:
        status, headers, content = served_once("POST", path, body, content_type)
        assert 400 <= status < 500, body[:40]
        assert headers[b"content-type"] == b"application/json"
        assert json.loads(content).keys() & {"error_code", "Message"}
        assert len(content) < 1000


@given(st.binary(max_size=60) | JSON, st.sampled_from(TYPES), st.sampled_from([INVOCATIONS, "/endpoints/m/invocations"]))
def test_whatever_is_posted_is_answered_or_refused(served_once, body: bytes, content_type: bytes, path: str) -> None:
    status, _headers, content = served_once("POST", path, body, content_type)
    assert status == 200 or 400 <= status < 500
    assert json.loads(content).keys() & {"predictions", "error_code", "Message"}
