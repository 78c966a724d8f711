"""The native dialect through the whole door, down to a runner's socket and back."""

import asyncio
import base64
import json
import re

import httpx
import numpy as np
import pytest

from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import DeploymentSettings, Limits

PREDICT = "/api/v1/predict/m"
CLASSES = Signature(
    (TensorSpec("input", Dtype.FP32, (-1, 2), columns=("a", "b")),),
    (
        TensorSpec("label", Dtype.INT64, (-1,)),
        TensorSpec("probabilities", Dtype.FP32, (-1, 3), classes=("0", "1", "2")),
    ),
)
ONE = {"inputs": [[1, 2]]}


def classify(inputs: dict) -> dict:
    """The class is the first column; its probability is 0.7."""
    label = inputs["input"][:, 0].astype(np.int64)
    return {"label": label, "probabilities": np.where(np.arange(3) == label[:, None], 0.7, 0.15).astype(np.float32)}


def faults(answer: httpx.Response, status: int = 400) -> list[tuple[str, str]]:
    assert answer.status_code == status
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    return [(one["path"], one["code"]) for one in answer.json().get("errors", [])]


@pytest.mark.parametrize(
    "inputs",
    [[[1, 2], [3, 4.5]], [{"a": 1, "b": 2}, {"b": 4.5, "a": 3}], {"a": [1, 3], "b": [2, 4.5]}, {"input": [[1, 2], [3, 4.5]]}],
)
async def test_rows_records_and_columns_are_answered_alike(house, inputs: object) -> None:
    await house.serve("m", number=7)
    answer = await house.client.post(PREDICT, json={"inputs": inputs})
    body = answer.json()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch("prd_[0-9A-Z]{26}", body.pop("id"))
    assert body == {
        "deployment": "m",
        "model": "m",
        "version": 7,
        "outputs": {"sum": [3.0, 7.5], "echo": [[1.0, 2.0], [3.0, 4.5]]},
    }


async def test_the_prediction_and_its_version_are_named_in_the_headers_too(house) -> None:
    await house.serve("m", number=7)
    answer = await house.client.post(PREDICT, json=ONE)
    assert answer.headers["x-prediction-id"] == answer.json()["id"]
    assert answer.headers["x-model-version"] == "7"


@pytest.mark.parametrize(
    "kind", [None, "application/json; charset=utf-8", "application/vnd.x+json", "application/x-www-form-urlencoded"]
)
async def test_json_is_read_whatever_usual_name_it_comes_under(house, kind: str | None) -> None:
    await house.serve("m")
    answer = await house.client.post(PREDICT, content=json.dumps(ONE), headers={"content-type": kind} if kind else {})
    assert answer.status_code == 200


async def test_an_answer_tells_of_itself_what_it_is_asked_for(house) -> None:
    await house.serve("m", number=7)
    assert "metadata" not in (await house.client.post(PREDICT, json=ONE)).json()
    metadata = (await house.client.post(PREDICT, json=ONE | {"include": ["version", "timings"]})).json()["metadata"]
    assert metadata["version"].keys() == {"id", "format", "framework", "digest", "created_at"}
    timings = metadata["timings"]
    assert timings == {"queue_ms": 0, "preprocess_ms": 0, "run_ms": 10, "total_ms": timings["total_ms"]}  # as the runner says
    assert timings["total_ms"] > 0
    only = (await house.client.post(PREDICT, json=ONE | {"include": ["timings"], "outputs": ["sum"]})).json()
    assert (only["metadata"].keys(), only["outputs"].keys()) == ({"timings"}, {"sum"})


async def test_an_answer_about_a_picture_tells_of_itself_too(house, images) -> None:
    await house.serve("m", images.signature, images.compute, scores="scores")
    headers = {"content-type": "image/png"}
    answer = await house.client.post(f"{PREDICT}?include=timings,version", content=b"ab", headers=headers)
    assert answer.json()["metadata"].keys() == {"timings", "version"}
    form = await house.client.post(PREDICT, files={"file": b"ab"}, data={"include": "version"})
    assert form.json()["metadata"].keys() == {"version"}
    refused = await house.client.post(f"{PREDICT}?include=secrets", content=b"ab", headers=headers)
    assert faults(refused) == [("include", "unknown_field")]


@pytest.mark.parametrize("include", [["all"], "timings", [1], {"timings": True}])
async def test_what_an_answer_cannot_tell_is_refused(house, include: object) -> None:
    await house.serve("m")
    answer = await house.client.post(PREDICT, json=ONE | {"include": include})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")


async def test_only_the_outputs_asked_for_come_back_in_their_order(house) -> None:
    await house.serve("m")
    answer = await house.client.post(PREDICT, json=ONE | {"outputs": ["echo"]})
    assert answer.json()["outputs"] == {"echo": [[1, 2]]}
    answer = await house.client.post(PREDICT, json=ONE | {"outputs": []})
    assert answer.json()["outputs"].keys() == {"sum", "echo"}
    answer = await house.client.post(PREDICT, json=ONE | {"outputs": ["sum", "other"]})
    assert faults(answer) == [("outputs.other", "unknown_output")]


async def test_what_is_not_a_number_is_answered_with_null(house) -> None:
    odd = np.array([np.nan, np.inf, -np.inf])
    await house.serve("m", compute=lambda inputs: {"sum": odd[: len(inputs["input"])], "echo": inputs["input"]})
    answer = await house.client.post(PREDICT, json={"inputs": [[1, 2]] * 3, "outputs": ["sum"]})
    assert answer.json()["outputs"] == {"sum": [None, None, None]}
    assert b"NaN" not in answer.content


async def test_texts_and_missing_values_go_in_and_come_out(house) -> None:
    signature = Signature(
        (TensorSpec("name", Dtype.BYTES, (-1,), nullable=True), TensorSpec("age", Dtype.INT64, (-1,))),
        (TensorSpec("said", Dtype.BYTES, (-1,)),),
    )

    def greet(inputs: dict) -> dict:
        said = np.empty(len(inputs["age"]), dtype=object)
        said[:] = [
            None if name is None else f"{name} is {age}" for name, age in zip(inputs["name"], inputs["age"], strict=True)
        ]
        return {"said": said}

    await house.serve("m", signature, greet)
    answer = await house.client.post(PREDICT, json={"inputs": [["Żółw 😀", 2**53 + 1], [None, 2]]})
    assert answer.json()["outputs"] == {"said": ["Żółw 😀 is 9007199254740993", None]}


async def test_top_k_gives_the_best_classes_of_each_row_best_first(house) -> None:
    await house.serve("m", CLASSES, classify, scores="probabilities", labels=("zero", "one", "two"))
    answer = await house.client.post(PREDICT, json={"inputs": [[2, 0], [0, 0]], "top_k": 2})
    first, second = answer.json()["predictions"]
    assert [(one["label"], one["index"]) for one in first] == [("two", 2), ("zero", 0)]
    assert [(one["label"], one["index"]) for one in second] == [("zero", 0), ("one", 1)]
    assert first[0]["score"] == float(np.float32(0.7))
    assert "outputs" not in answer.json()


async def test_without_labels_the_models_own_classes_name_them(house) -> None:
    await house.serve("m", CLASSES, classify, scores="probabilities")
    answer = await house.client.post(PREDICT, json={"inputs": [[2, 0]], "top_k": 1000})
    assert [one["label"] for one in answer.json()["predictions"][0]] == ["2", "0", "1"]


async def test_the_class_of_each_row_is_named_beside_its_number(house) -> None:
    await house.serve("m", CLASSES, classify, scores="probabilities", labels=("zero", "one", "two"))
    body = (await house.client.post(PREDICT, json={"inputs": [[2, 0], [0, 0], [9, 0]]})).json()
    assert body["labels"] == ["two", "zero", "9"]
    assert body["outputs"]["label"] == [2, 0, 9]


@pytest.mark.parametrize("top_k", [0, -1, 1001, 10**30])
async def test_top_k_has_bounds(house, top_k: int) -> None:
    await house.serve("m", CLASSES, classify, scores="probabilities")
    answer = await house.client.post(PREDICT, json={"inputs": [[2, 0]], "top_k": top_k})
    assert faults(answer) == [("top_k", "out_of_range")]


async def test_a_model_without_scores_has_no_top_k(house) -> None:
    await house.serve("m")
    assert faults(await house.client.post(PREDICT, json=ONE | {"top_k": 1})) == [("top_k", "no_scores")]


# ---- pictures


async def test_a_picture_comes_as_a_form_as_it_is_or_as_base64(house, images) -> None:
    await house.serve("m", images.signature, images.compute, scores="scores", labels=("ant", "bee", "cat", "dog"))
    picture = b"ddddd\x00ccca"
    text = base64.b64encode(picture).decode()
    answers = [
        await house.client.post(PREDICT, files={"file": ("x.jpg", picture, "image/jpeg")}, data={"top_k": "2"}),
        await house.client.post(f"{PREDICT}?top_k=2", files={"image": picture}),
        await house.client.post(f"{PREDICT}?top_k=2", content=picture, headers={"content-type": "image/jpeg"}),
        await house.client.post(f"{PREDICT}?top_k=2", content=picture, headers={"content-type": "application/octet-stream"}),
        await house.client.post(PREDICT, json={"inputs": [text], "top_k": 2}),
        await house.client.post(PREDICT, json={"inputs": {"image": [f"data:image/jpeg;base64,{text}"]}, "top_k": 2}),
    ]
    for answer in answers:
        assert answer.json()["predictions"] == [
            [{"label": "dog", "index": 3, "score": 5.0}, {"label": "cat", "index": 2, "score": 3.0}]
        ]


async def test_pictures_are_answered_with_classes_unless_outputs_are_asked_for(house, images) -> None:
    await house.serve("m", images.signature, images.compute, scores="scores")
    body = {"inputs": [base64.b64encode(b"ab").decode()]}
    assert len((await house.client.post(PREDICT, json=body)).json()["predictions"][0]) == 4
    answer = await house.client.post(PREDICT, json=body | {"outputs": ["scores"]})
    assert answer.json()["outputs"] == {"scores": [[1, 1, 0, 0]]}


@pytest.mark.parametrize(
    "sent",
    [
        {"content": b"ab", "headers": {"content-type": "image/png"}, "params": {"outputs": "size,scores"}},
        {"files": {"file": b"ab"}, "params": {"outputs": "size,scores"}},
        {"files": {"file": b"ab", "outputs": (None, "size,scores")}},
    ],
)
async def test_outputs_are_asked_for_beside_a_picture_as_it_is(house, images, sent: dict) -> None:
    outputs = (*images.signature.outputs, TensorSpec("size", Dtype.INT64, (-1,)))
    sized = Signature(images.signature.inputs, outputs, image=True)
    size = lambda inputs: images.compute(inputs) | {"size": np.array([len(one) for one in inputs["image"]])}  # noqa: E731
    await house.serve("m", sized, size, scores="scores")
    answer = (await house.client.post(PREDICT, **sent)).json()
    assert list(answer["outputs"].items()) == [("size", [2]), ("scores", [[1, 1, 0, 0]])]
    assert "predictions" not in answer
    wrong = {"params": {"outputs": "scores,colour"}, "content": b"ab", "headers": {"content-type": "image/png"}}
    assert faults(await house.client.post(PREDICT, **wrong)) == [("outputs.colour", "unknown_output")]


async def test_classes_and_outputs_are_answered_together(house) -> None:
    signature = Signature((TensorSpec("x", Dtype.FP32, (-1, 3)),), (TensorSpec("p", Dtype.FP32, (-1, 3)),))
    await house.serve("m", signature, lambda inputs: {"p": inputs["x"]}, scores="p")
    body = {"inputs": [[1, 9, 5]], "top_k": 1}
    assert "outputs" not in (await house.client.post(PREDICT, json=body)).json()
    answer = (await house.client.post(PREDICT, json=body | {"outputs": ["p"]})).json()
    assert answer["predictions"] == [[{"label": "1", "index": 1, "score": 9.0}]]
    assert answer["outputs"] == {"p": [[1.0, 9.0, 5.0]]}


async def test_several_pictures_of_a_form_are_several_rows(house, images) -> None:
    await house.serve("m", images.signature, images.compute, scores="scores", labels=("ant", "bee", "cat", "dog"))
    answer = await house.client.post(f"{PREDICT}?top_k=1", files=[("file", b"aa"), ("file", b"bb"), ("files", b"c")])
    assert [row[0]["label"] for row in answer.json()["predictions"]] == ["ant", "bee", "cat"]


async def test_the_short_form_answers_one_picture_with_its_classes_alone(house, images) -> None:
    await house.serve("m", images.signature, images.compute, scores="scores")
    one = await house.client.post("/predict?top_k=1", files={"file": b"aa"})
    assert one.json()["predictions"] == [{"label": "0", "index": 0, "score": 2.0}]
    two = await house.client.post("/predict?top_k=1", files=[("file", b"aa"), ("file", b"b")])
    assert [len(row) for row in two.json()["predictions"]] == [1, 1]


async def test_a_picture_that_is_none_is_refused_by_its_row(house, images) -> None:
    await house.serve("m", images.signature, images.compute, scores="scores")
    answer = await house.client.post(PREDICT, files=[("file", b"aa"), ("file", b"")])
    assert faults(answer) == [("inputs[1]", "bad_image")]


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        ({"files": {"picture": b"x"}}, ("picture", "unknown_field")),
        ({"files": {"top_k": (None, "1")}}, ("file", "missing_file")),
        ({"files": {"file": b"x", "top_k": (None, "many")}}, ("top_k", "out_of_range")),
        ({"files": {"file": b"x", "top_k": (None, b"\xff")}}, ("top_k", "out_of_range")),
        ({"files": {"file": b"x", "top_k": (None, "0000000000600000")}}, ("top_k", "out_of_range")),
        ({"files": {"file": b"x", "top_k": (None, "1" * 5000)}}, ("top_k", "out_of_range")),
    ],
)
async def test_a_form_with_other_fields_is_refused(house, images, sent: dict, fault: tuple[str, str]) -> None:
    await house.serve("m", images.signature, images.compute, scores="scores")
    assert faults(await house.client.post(PREDICT, **sent)) == [fault]


@pytest.mark.parametrize("top_k", ["", "0", "x", "1.5", "-1", "٣", "00000000005000", "9" * 5000])
async def test_top_k_of_the_query_has_bounds_too(house, images, top_k: str) -> None:
    await house.serve("m", images.signature, images.compute, scores="scores")
    answer = await house.client.post(PREDICT, params={"top_k": top_k}, content=b"a", headers={"content-type": "image/png"})
    assert faults(answer) == [("top_k", "out_of_range")]


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=x", "text/plain", "", "text/csv"])
async def test_a_model_of_numbers_takes_json_only(house, kind: str) -> None:
    await house.serve("m")
    answer = await house.client.post(PREDICT, content=b"x", headers={"content-type": kind or "x"})
    assert answer.status_code == 400
    assert answer.json()["code"] == "unsupported_media_type"


# ---- what is refused


@pytest.mark.parametrize(
    ("body", "code", "expected"),
    [
        (b"", "invalid_json", []),
        (b"{", "invalid_json", []),
        (b"\xff", "invalid_json", []),
        (b"[" * 1_000_000, "invalid_json", None),
        (b"{}", "invalid_json", [("inputs", "missing_field")]),
        (b"[]", "invalid_json", [("body", "invalid_field")]),
        (b'{"inputs": [[1, 2]], "instances": 1}', "invalid_json", [("instances", "unknown_field")]),
        (b'{"inputs": [[1, 2]], "top_k": "3"}', "invalid_json", [("top_k", "invalid_field")]),
        (b'{"inputs": [[1, 2]], "outputs": [1]}', "invalid_json", [("outputs[0]", "invalid_field")]),
        (b'{"inputs": [[1, 2]], "version": true}', "invalid_json", [("version", "invalid_field")]),
        (b'{"inputs": [[1, NaN]]}', "invalid_json", []),
        (b'{"inputs": [[1, "2"]]}', "invalid_input", [("inputs[0][1]", "not_a_number")]),
        (b'{"inputs": null}', "invalid_input", [("inputs", "not_a_list")]),
    ],
)
async def test_a_refusal_says_which_field_and_why(house, body: bytes, code: str, expected: list | None) -> None:
    await house.serve("m")
    answer = await house.client.post(PREDICT, content=body)
    found = faults(answer)
    assert answer.json()["code"] == code
    assert expected is None or found == expected


async def test_a_deployment_that_is_not_there_is_not_found_before_the_body_is_read(house) -> None:
    await house.serve("m")
    for path in ("/api/v1/predict/other", "/predict?model=other", "/api/v1/predict/"):
        answer = await house.client.post(path, content=b"{")
        assert (answer.status_code, answer.json()["code"]) == (404, "deployment_not_found")


@pytest.mark.parametrize("version", [1, "1"])
async def test_the_version_that_shall_answer_may_be_named(house, version: int | str) -> None:
    await house.serve("m")
    assert (await house.client.post(PREDICT, json=ONE | {"version": version})).status_code == 200
    assert (await house.client.post(f"{PREDICT}?version={version}", json=ONE)).status_code == 200


async def test_another_version_than_the_one_that_answers_is_not_found(house) -> None:
    await house.serve("m")
    for answer in (
        await house.client.post(PREDICT, json=ONE | {"version": 2}),
        await house.client.post(f"{PREDICT}?version=2", json=ONE),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "version_not_served")


async def test_a_model_that_fails_is_not_the_callers_fault(house, refuse) -> None:
    def fail(_inputs: dict) -> dict:
        raise refuse("model_failed", "ValueError: x")

    await house.serve("m", compute=fail)
    answer = await house.client.post(PREDICT, json=ONE)
    assert (answer.status_code, answer.json()["code"]) == (500, "model_failed")


async def test_a_model_out_of_memory_asks_to_come_back(house, refuse) -> None:
    def fail(_inputs: dict) -> dict:
        raise refuse("memory", "")

    await house.serve("m", compute=fail)
    answer = await house.client.post(PREDICT, json=ONE)
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "model_memory_limit", "1")


# ---- deadlines, queues, swaps


async def test_a_passed_deadline_is_told_and_the_next_request_is_answered(house) -> None:
    version = await house.serve("m")
    house.gates[version] = asyncio.Event()
    answer = await house.client.post(PREDICT, json=ONE, headers={"x-request-timeout": "0.02"})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    house.gates[version].set()
    assert (await house.client.post(PREDICT, json=ONE)).status_code == 200


async def test_the_installations_deadline_bounds_the_callers(open_house) -> None:
    house = open_house(deadline_s=0.02)
    version = await house.serve("m")
    house.gates[version] = asyncio.Event()
    for headers in ({}, {"x-request-timeout": "9999"}):
        assert (await house.client.post(PREDICT, json=ONE, headers=headers)).status_code == 504
    house.gates[version].set()


@pytest.mark.parametrize("wish", ["0", "-1", "nan", "inf", "soon", ""])
async def test_a_deadline_is_a_number_of_seconds(house, wish: str) -> None:
    await house.serve("m")
    answer = await house.client.post(PREDICT, json=ONE, headers={"x-request-timeout": wish})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_timeout")


async def test_a_full_queue_refuses_at_once(open_house) -> None:
    house = open_house(max_queue=1)
    version = await house.serve("m")
    house.gates[version] = asyncio.Event()
    running = asyncio.create_task(house.client.post(PREDICT, json=ONE))
    while not house.router.find("m").served.batcher.busy:
        await asyncio.sleep(0)
    tasks = [running, *(asyncio.create_task(house.client.post(PREDICT, json=ONE)) for _ in range(2))]
    done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    (refused,) = [task.result() for task in done]
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "overloaded", "1")
    house.gates[version].set()
    assert sorted([(await task).status_code for task in tasks]) == [200, 200, 503]


async def test_requests_that_wait_for_a_version_to_load_are_answered_when_it_has(house) -> None:
    version = await house.serve("m", wait=False)
    waiting = asyncio.create_task(house.client.post(PREDICT, json=ONE))
    await asyncio.sleep(0)
    await house.connect(version)
    assert (await waiting).status_code == 200


async def test_a_request_whose_body_arrives_after_a_swap_is_answered_by_the_new_version(house) -> None:
    house.settings["m"] = DeploymentSettings(bake_s=0)
    await house.serve("m", number=1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow_body():
        begun.set()
        await go_on.wait()
        yield json.dumps(ONE).encode()

    for path in (PREDICT, "/v2/models/m/infer"):
        begun.clear()
        go_on.clear()
        number = 2 if path == PREDICT else 3
        body = slow_body() if path == PREDICT else slow_infer(begun, go_on)
        asking = asyncio.create_task(house.client.post(path, content=body, headers={"x-request-timeout": "2"}))
        await begun.wait()
        await house.serve("m", number=number)
        assert house.router.pool.get(f"m-{number - 1}") is None
        go_on.set()
        answer = await asking
        assert answer.status_code == 200
        assert answer.headers["x-model-version"] == str(number)


async def slow_infer(begun: asyncio.Event, go_on: asyncio.Event):
    begun.set()
    await go_on.wait()
    yield json.dumps({"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}).encode()


async def test_no_request_is_lost_while_versions_follow_each_other(house) -> None:
    await house.serve("m", number=1)
    answers: list[httpx.Response] = []
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            answers.append(await house.client.post(PREDICT, json=ONE))

    callers = [asyncio.create_task(ask()) for _ in range(4)]
    for number in range(2, 8):
        await house.serve("m", number=number)
        seen = len(answers)
        while len(answers) < seen + 8:
            await asyncio.wait(callers, timeout=0.005)
    stop.set()
    await asyncio.gather(*callers)
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["version"] for answer in answers} >= {2, 7}


async def test_requests_at_once_share_runs_and_keep_their_own_rows(house) -> None:
    version = await house.serve("m")
    house.gates[version] = asyncio.Event()
    batcher = house.router.find("m").served.batcher

    def ask(number: int) -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(house.client.post(PREDICT, json={"inputs": [[number, 0]]}))

    asking = [ask(0)]
    while not batcher.busy:
        await asyncio.sleep(0)
    asking += [ask(number) for number in range(1, 20)]
    while batcher.waiting < 19:
        await asyncio.sleep(0)
    house.gates[version].set()
    for at, task in enumerate(asking):
        assert (await task).json()["outputs"]["sum"] == [at]
    assert batcher.runs == 2


async def test_a_run_past_the_versions_limit_ends_its_runner(house) -> None:
    version = await house.serve("m", limits=Limits(run_timeout_s=0.02))
    house.gates[version] = asyncio.Event()
    asking = asyncio.create_task(house.client.post(PREDICT, json=ONE))
    await asyncio.wait({asking}, timeout=0.2)
    assert any(type(message).__name__ == "Kill" and message.cause == "deadline" for message in house.sent)
    house.gates[version].set()
    await asking


# ---- the short forms


async def test_the_short_forms_mean_the_only_model_there_is(house) -> None:
    answer = await house.client.post("/predict", json=ONE)
    assert answer.status_code == 404
    await house.serve("m")
    assert (await house.client.post("/predict", json=ONE)).json()["outputs"]["sum"] == [3]
    await house.serve("n")
    answer = await house.client.post("/predict", json=ONE)
    assert (answer.status_code, answer.json()["code"]) == (404, "model_needed")
    assert (await house.client.post("/predict?model=n", json=ONE)).json()["deployment"] == "n"


async def test_the_default_model_answers_the_short_forms(open_house) -> None:
    house = open_house(default_model="n")
    await house.serve("m")
    await house.serve("n")
    assert (await house.client.post("/predict", json=ONE)).json()["deployment"] == "n"
    assert (await house.client.get("/info")).json()["deployment"] == "n"


async def test_info_describes_what_answers(house) -> None:
    await house.serve("m", CLASSES, classify, scores="probabilities", labels=("zero", "one", "two"), number=4)
    info = (await house.client.get("/info?model=m")).json()
    assert (info["model"], info["version"], info["version_id"], info["ready"]) == ("m", 4, "m-4", True)
    assert info["classes"] == ["zero", "one", "two"]
    assert info["signature"]["inputs"][0] == {"name": "input", "dtype": "FP32", "shape": [-1, 2], "columns": ["a", "b"]}
    assert (info["product"], info["product_version"]) == ("modelkeep", "9.9")
    listed = (await house.client.get("/info")).json()
    assert [one["model"] for one in listed["models"]] == ["m"]
    assert (await house.client.get("/info?model=other")).status_code == 404
