"""Vertex AI's two routes, at whatever paths it gives; who may use them; and what they leave alone."""

import base64
import json

import httpx
import pytest

from modelkeep.contracts.signature import Dtype, Signature, TensorSpec

PREDICT = "/v1/endpoints/123/deployedModels/456:predict"
HEALTH = "/v1/endpoints/123/deployedModels/456"
OWN = {"predict_route": PREDICT, "health_route": HEALTH}
SHARED = {"predict_route": "/predict", "health_route": "/health"}
ROUTES = pytest.mark.parametrize("routes", [OWN, SHARED], ids=["own", "shared"])
SCALARS = Signature((TensorSpec("x", Dtype.FP32, (-1,)),), (TensorSpec("y", Dtype.FP32, (-1,)),))


def half_plus_three(inputs: dict) -> dict:
    return {"y": inputs["x"] / 2 + 3}


def problem(answer: httpx.Response, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()["code"]


@ROUTES
async def test_instances_become_predictions_in_their_order(open_house, routes: dict[str, str]) -> None:
    house = open_house(**routes)
    await house.serve("m", SCALARS, half_plus_three)
    for body in ({"instances": [1.0, 5.0, 2.0]}, {"instances": [{"x": 1}, {"x": 5}, {"x": 2}], "parameters": {"other": True}}):
        answer = await house.client.post(routes["predict_route"], json=body)
        assert answer.json() == {"predictions": [3.5, 5.5, 4.0]}
        assert answer.headers["x-prediction-id"]
    assert [one.dialect for one in house.records] == ["vertex", "vertex"]


@ROUTES
async def test_health_follows_the_models_and_needs_no_key(open_house, routes: dict[str, str]) -> None:
    house = open_house(**routes)
    del house.client.headers["x-api-key"]
    route = routes["health_route"]
    assert (await house.client.get(route)).status_code == 503
    version = await house.serve("m", wait=False)
    assert (await house.client.get(route)).status_code == 503
    await house.connect(version)
    for method in ("GET", "HEAD"):
        answer = await house.client.request(method, route)
        assert answer.status_code == 200
    assert (await house.client.get("/health")).json()["status"] == "healthy"
    if routes is not SHARED:
        assert problem(await house.client.post(route), 405) == "method_not_allowed"


async def test_one_path_may_be_both_routes(open_house) -> None:
    house = open_house(predict_route="/vertex", health_route="/vertex")
    await house.serve("m", SCALARS, half_plus_three)
    assert (await house.client.get("/vertex")).status_code == 200
    assert (await house.client.post("/vertex", json={"instances": [1]})).json() == {"predictions": [3.5]}


async def test_without_the_settings_there_are_no_such_routes(house) -> None:
    await house.serve("m", SCALARS, half_plus_three)
    assert (await house.client.post(PREDICT, json={"instances": [1]})).status_code == 404
    assert problem(await house.client.post("/predict", json={"instances": [1]})) == "invalid_json"


async def test_the_native_form_lives_on_at_the_same_path(open_house, images) -> None:
    house = open_house(**SHARED)
    await house.serve("m")
    await house.serve("picture", images.signature, images.compute, scores="scores")
    answer = await house.client.post("/predict?model=m", json={"inputs": [[1, 2]]})
    assert answer.json()["outputs"]["sum"] == [3.0]
    answer = await house.client.post("/predict?model=picture", files={"file": b"aab"})
    assert answer.json()["predictions"][0]["score"] == 2.0
    answer = await house.client.post("/predict?model=picture", content=b"bb", headers={"content-type": "image/png"})
    assert answer.json()["predictions"][0]["index"] == 1
    assert problem(await house.client.post("/predict?model=m", content=b"{")) == "invalid_json"
    assert [one.dialect for one in house.records] == ["native"] * 4


async def test_pictures_come_in_base64_and_top_k_ranks_their_classes(open_house, images) -> None:
    house = open_house(**OWN)
    await house.serve("m", images.signature, images.compute, scores="scores", labels=("a", "b", "c", "d"))
    picture = {"b64": base64.b64encode(b"aabd").decode()}
    answer = await house.client.post(PREDICT, json={"instances": [picture, {"image": picture}]})
    assert answer.json() == {"predictions": [[2.0, 1.0, 0.0, 1.0]] * 2}
    answer = await house.client.post(PREDICT, json={"instances": [picture], "parameters": {"top_k": 2}})
    best = [{"label": "a", "index": 0, "score": 2.0}, {"label": "b", "index": 1, "score": 1.0}]
    assert answer.json() == {"predictions": [best]}
    for wrong in (0, -1, 1001, "2", True, 1.5, [1]):
        answer = await house.client.post(PREDICT, json={"instances": [picture], "parameters": {"top_k": wrong}})
        assert problem(answer) == "invalid_input"
        assert answer.json()["errors"][0]["path"] == "parameters.top_k"
    await house.serve("n", SCALARS, half_plus_three)
    answer = await house.client.post(f"{PREDICT}?model=n", json={"instances": [1], "parameters": {"top_k": 2}})
    assert problem(answer) == "invalid_input"


async def test_of_several_models_the_caller_or_the_settings_choose(open_house) -> None:
    house = open_house(**OWN, default_model="n")
    for name, factor in (("m", 1.0), ("n", 2.0)):
        await house.serve(name, SCALARS, lambda inputs, factor=factor: {"y": inputs["x"] * factor})
    assert (await house.client.post(PREDICT, json={"instances": [3]})).json() == {"predictions": [6.0]}
    named = await house.client.post(PREDICT, json={"instances": [3]}, headers={"x-modelkeep-model": "m"})
    assert named.json() == {"predictions": [3.0]}
    assert problem(await house.client.post(f"{PREDICT}?version=2", json={"instances": [3]}), 404) == "version_not_served"


HOSTILE = [
    b"",
    b"[" * 1_000_000,
    b'{"instances": ' + b"[" * 1_000_000,
    b'{"instances": [NaN]}',
    b"[1]",
    b"null",
    b"{}",
    b'{"instances": null}',
    b'{"instances": []}',
    b'{"instances": {"x": [1]}}',
    b'{"instances": "c4nary"}',
    b'{"instances": ["c4nary"]}',
    b'{"instances": [1], "parameters": ["c4nary"]}',
    b'{"instances": [[1], [2, 3]]}',
    b"\xff",
]


@ROUTES
@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: body[:30].decode("latin-1"))
async def test_hostile_bodies_are_refused(open_house, routes: dict[str, str], body: bytes) -> None:
    house = open_house(**routes)
    await house.serve("m", SCALARS, half_plus_three)
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
        answer = await house.client.post(routes["predict_route"], content=body, headers={"content-type": kind})
        assert problem(answer) in {"invalid_json", "invalid_input", "unsupported_media_type"}
        assert "c4nary" not in answer.text
        assert len(answer.content) < 2000


# ---- callers without keys


@ROUTES
async def test_a_key_is_needed_where_none_stands_in(open_house, routes: dict[str, str]) -> None:
    house = open_house(**routes)
    await house.serve("m", SCALARS, half_plus_three)
    del house.client.headers["x-api-key"]
    assert problem(await house.client.post(routes["predict_route"], json={"instances": [1]}), 401) == "unauthenticated"


@ROUTES
async def test_the_key_that_stands_in_answers_for_who_shows_none(open_house, routes: dict[str, str]) -> None:
    house = open_house(**routes, stand_in="predict")
    await house.serve("m", SCALARS, half_plus_three)
    del house.client.headers["x-api-key"]
    route, body = routes["predict_route"], {"instances": [1]}
    assert (await house.client.post(route, json=body)).json() == {"predictions": [3.5]}
    assert house.records[-1].key_id == "predict"
    for shown in ({"x-api-key": "nobody"}, {"authorization": "Bearer nobody"}, {"origin": "http://elsewhere"}):
        assert problem(await house.client.post(route, json=body, headers=shown), 401) == "unauthenticated"
    house.keys.replace([])
    assert problem(await house.client.post(route, json=body), 401) == "unauthenticated"


async def test_the_key_that_stands_in_opens_no_other_route(open_house) -> None:
    house = open_house(**OWN, stand_in="all")
    await house.serve("m", SCALARS, half_plus_three)
    del house.client.headers["x-api-key"]
    closed = [
        ("POST", "/api/v1/predict/m"),
        ("POST", "/predict"),
        ("GET", "/info"),
        ("GET", "/metrics"),
        ("POST", "/v2/models/m/infer"),
        ("GET", "/v1/models/m"),
        ("POST", "/v1/models/m:predict"),
        ("POST", f"{PREDICT}/"),
        ("POST", f"{PREDICT}x"),
    ]
    for method, path in closed:
        answer = await house.client.request(method, path, content=json.dumps({"instances": [1]}))
        assert answer.status_code == 401, path


async def test_a_key_that_may_not_predict_stands_for_nobody(open_house) -> None:
    house = open_house(**OWN, stand_in="read")
    await house.serve("m", SCALARS, half_plus_three)
    del house.client.headers["x-api-key"]
    assert problem(await house.client.post(PREDICT, json={"instances": [1]}), 403) == "forbidden"
