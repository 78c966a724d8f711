"""The door itself: who comes in, what is healthy, how refusals look, and what they never say."""

import re
import time

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.contracts.errors import VersionQuarantined
from modelkeep.sandbox import control

PREDICT = "/api/v1/predict/m"
CLOSED = [
    ("POST", PREDICT),
    ("POST", "/predict"),
    ("GET", "/info"),
    ("GET", "/metrics"),
    ("GET", "/v2"),
    ("GET", "/v2/"),
    ("GET", "/v2/models/m"),
    ("GET", "/v2/models/m/ready"),
    ("GET", "/v2/models/m/versions/1"),
    ("GET", "/v2/models/m/versions/1/ready"),
    ("POST", "/v2/models/m/infer"),
    ("POST", "/v2/models/m/versions/1/infer"),
    ("POST", "/v2/repository/index"),
    ("GET", "/v2/health"),
    ("GET", "/v2/health/live/x"),
    ("GET", "/v2/health/started"),
]
OPEN = ["/ping", "/version", "/healthz", "/readyz", "/health", "/v2/health/live", "/v2/health/ready"]


def refused(answer: httpx.Response) -> str:
    """The code of a problem document that is whole."""
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == answer.status_code
    assert problem["type"] == f"urn:modelkeep:error:{problem['code']}"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"].endswith((".", "}"))
    return problem["code"]


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_no_route_but_health_answers_without_a_key(house, method: str, path: str) -> None:
    await house.serve("m")
    for headers in ({"x-api-key": ""}, {"x-api-key": "nobody"}, {"x-api-key": "nobody", "authorization": "Bearer all"}):
        answer = await house.client.request(method, path, headers=headers)
        assert answer.status_code == 401
        if path.startswith("/v2"):
            assert answer.json().keys() == {"error"}
        else:
            assert refused(answer) == "unauthenticated"
            assert answer.headers["www-authenticate"].startswith("Bearer")
    del house.client.headers["x-api-key"]
    assert (await house.client.request(method, path)).status_code == 401


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_a_key_without_the_scope_is_not_let_in(house, method: str, path: str) -> None:
    await house.serve("m")
    other = "predict" if path == "/metrics" else "metrics"
    for key in ("read", other):
        answer = await house.client.request(method, path, headers={"x-api-key": key})
        assert answer.status_code == 403
        assert path.startswith("/v2") or refused(answer) == "forbidden"


@pytest.mark.parametrize("path", OPEN)
async def test_health_needs_no_key(house, path: str) -> None:
    await house.serve("m")
    del house.client.headers["x-api-key"]
    assert (await house.client.get(path)).status_code == 200


async def test_a_bearer_token_is_a_key_too(house) -> None:
    await house.serve("m")
    del house.client.headers["x-api-key"]
    answer = await house.client.post(PREDICT, json={"inputs": [[1, 2]]}, headers={"authorization": "Bearer predict"})
    assert answer.status_code == 200


async def test_once_the_news_is_too_old_nobody_comes_in_and_readiness_says_why(open_house) -> None:
    house = open_house(max_staleness_s=30.0)
    await house.serve("m")
    house.keys._news_at = time.time() - 31
    answer = await house.client.post(PREDICT, json={"inputs": [[1, 2]]})
    assert (answer.status_code, refused(answer), answer.headers["retry-after"]) == (503, "stale_news", "5")
    ready = await house.client.get("/readyz")
    assert (ready.status_code, ready.json()["reasons"]) == (503, ["the news from the control plane is too old"])
    assert (await house.client.get("/healthz")).status_code == 200


async def test_readiness_follows_news_models_and_the_end(house) -> None:
    async def readiness() -> tuple[int, list[str]]:
        answer = await house.client.get("/readyz")
        return answer.status_code, answer.json()["reasons"]

    assert await readiness() == (503, ["no news from the control plane yet"])
    version = await house.serve("m", wait=False)
    assert await readiness() == (503, ["models are being loaded"])
    assert (await house.client.get("/v2/health/ready")).json() == {"live": True, "ready": False}
    await house.connect(version)
    assert await readiness() == (200, [])
    assert (await house.client.get("/v2/health/ready")).json() == {"live": True, "ready": True}
    house.door.drain()
    assert await readiness() == (503, ["draining"])
    assert (await house.client.get("/healthz")).json() == {"status": "ok", "version": "9.9"}


async def test_health_counts_models_that_answer_load_and_fail(house) -> None:
    await house.serve("m")
    await house.serve("n", wait=False)
    version = await house.serve("o", wait=False)
    assert (await house.client.get("/health")).json()["status"] == "healthy"
    house.router.pool.take(control.Held(version, 60, "it ended with status 3"), [])
    health = (await house.client.get("/health")).json()
    counted = {"ready": 1, "asleep": 0, "loading": 1, "failing": 1, "differing": 0}
    assert (health["status"], health["models"]) == ("degraded", counted)
    found = house.router.routes()["m"]
    found.golden.differs = "it answers otherwise"
    assert (await house.client.get("/health")).json()["models"]["differing"] == 1
    assert 'modelkeep_golden_differs{deployment="m"} 1' in (await house.client.get("/metrics")).text


async def test_a_version_held_back_refuses_at_once(house) -> None:
    version = await house.serve("m", wait=False)
    house.router.pool.take(control.Held(version, 42.2, "it ended with status 3"), [])
    answer = await house.client.post(PREDICT, json={"inputs": [[1, 2]]})
    assert (answer.status_code, refused(answer), answer.headers["retry-after"]) == (503, VersionQuarantined.code, "43")


async def test_what_is_served_elsewhere_is_passed_on_and_told_when_there_is_nobody(house) -> None:
    for method, path in (("GET", "/api/v1/models"), ("POST", "/api/v1/models/m/versions"), ("GET", "/"), ("GET", "/docs")):
        answer = await house.client.request(method, path)
        assert (answer.status_code, refused(answer)) == (503, "control_plane_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", [PREDICT, "/predict"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_predictions_are_posted(house, method: str, path: str) -> None:
    await house.serve("m")
    answer = await house.client.request(method, path)
    assert answer.status_code in {404, 405}
    if method != "HEAD":
        assert refused(answer) == "method_not_allowed"


async def test_a_request_id_is_accepted_made_or_taken_from_the_trace(house) -> None:
    await house.serve("m")
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    for path, body in ((PREDICT, {"inputs": [[1, 2]]}), (PREDICT, {}), ("/v2/models/m/infer", {}), ("/healthz", None)):
        send = {"json": body} if body is not None else {}
        method = "POST" if body is not None else "GET"
        ids = [
            (await house.client.request(method, path, headers=headers, **send)).headers.get_list("x-request-id")
            for headers in ({"x-request-id": "mine/1"}, trace, {"x-request-id": "not decent"})
        ]
        assert ids[0] == ["mine/1"]
        assert ids[1] == ["4bf92f3577b34da6a3ce929d0e0e4736"]
        assert re.fullmatch("req_[0-9A-Z]{26}", ids[2][0])


@pytest.mark.parametrize("path", [PREDICT, "/predict", "/v2/models/m/infer"])
async def test_a_body_over_the_limit_is_refused(open_house, path: str) -> None:
    house = open_house(max_body_mb=1)
    await house.serve("m")

    async def pieces():
        for _ in range(20):
            yield b" " * 100_000

    for content in (b" " * (1024 * 1024 + 1), pieces()):
        answer = await house.client.post(path, content=content)
        assert answer.status_code == 413
        assert path.startswith("/v2") or refused(answer) == "too_large"


async def test_a_failure_of_our_own_is_told_without_its_words(house) -> None:
    await house.serve("m", compute=lambda inputs: {"sum": inputs["input"]})  # less than its signature promises
    answer = await house.client.post("/v2/models/m/infer", json=infer([[1, 2]]))
    assert (answer.status_code, answer.json().keys()) == (500, {"error"})
    assert "KeyError" not in answer.text


async def test_only_http_is_spoken(house) -> None:
    with pytest.raises(NotImplementedError):
        await house.door({"type": "websocket"}, None, None)


def infer(rows: object) -> dict[str, object]:
    return {"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "data": rows}]}


CANARY = "c4nary"
TELLTALE = re.compile(rf"{CANARY}|Traceback|File \"|/src/|site-packages|\.py\b|(?-i:0x[0-9a-f]{{6,}})|object at", re.IGNORECASE)
WRONG: list[tuple[str, dict[str, object]]] = [
    (PREDICT, {"json": {"inputs": [[CANARY, 1]]}}),
    (PREDICT, {"json": {"inputs": [{"a": CANARY, "b": [CANARY]}]}}),
    (PREDICT, {"json": {"inputs": {"a": [CANARY], "b": [1]}}}),
    (PREDICT, {"json": {"inputs": CANARY}}),
    (PREDICT, {"json": {"inputs": [[1, 2]], "top_k": CANARY}}),
    (PREDICT, {"json": {"inputs": [[1, 2]], "outputs": CANARY}}),
    (PREDICT, {"json": {"inputs": [[1, 2]], "version": [CANARY]}}),
    (PREDICT, {"json": {"inputs": [[1, 2]], "version": CANARY}}),
    (PREDICT, {"json": [CANARY]}),
    (PREDICT, {"json": CANARY}),
    (PREDICT, {"content": CANARY.encode()}),
    (PREDICT, {"content": b'{"inputs": ' + CANARY.encode()}),
    (PREDICT, {"json": {"inputs": [[1, 2]]}, "headers": {"x-request-timeout": CANARY}}),
    (PREDICT, {"json": {"inputs": [[1, 2]]}, "headers": {"x-api-key": CANARY}}),
    (PREDICT, {"content": b"x", "headers": {"content-type": f"text/{CANARY}"}}),
    (PREDICT, {"files": {"file": CANARY.encode()}}),
    (f"{PREDICT}?version={CANARY}", {"json": {"inputs": [[1, 2]]}}),
    (f"/api/v1/predict/{CANARY}", {"json": {"inputs": [[1, 2]]}}),
    (f"/predict?model={CANARY}", {"json": {"inputs": [[1, 2]]}}),
    ("/api/v1/predict/bad", {"json": {"inputs": [[1, 2]]}}),
    ("/api/v1/predict/picture?top_k=" + CANARY, {"content": b"x", "headers": {"content-type": "image/png"}}),
    ("/api/v1/predict/picture", {"json": {"inputs": [f"{CANARY}*"]}}),
    ("/api/v1/predict/picture", {"files": {"other": CANARY.encode()}}),
    ("/api/v1/predict/picture", {"files": {"file": b"x"}, "data": {"top_k": CANARY}}),
    ("/api/v1/predict/picture", {"content": CANARY.encode(), "headers": {"content-type": "multipart/form-data; boundary=x"}}),
    ("/v2/models/m/infer", {"json": infer([[CANARY, 1]])}),
    ("/v2/models/m/infer", {"json": infer(CANARY)}),
    ("/v2/models/m/infer", {"json": {"inputs": CANARY}}),
    ("/v2/models/m/infer", {"json": {"inputs": [{"name": "input", "shape": CANARY, "datatype": "FP64", "data": []}]}}),
    ("/v2/models/m/infer", {"json": {"inputs": [{"name": "input", "shape": [1], "datatype": CANARY, "data": [1]}]}}),
    ("/v2/models/m/infer", {"json": infer([[1, 2]]) | {"id": [CANARY]}}),
    ("/v2/models/m/infer", {"content": CANARY.encode()}),
    ("/v2/models/bad/infer", {"json": infer([[1, 2]])}),
    (f"/v2/models/{CANARY}/infer", {"json": {}}),
    (f"/v2/{CANARY}", {"json": {}}),
]


@pytest.mark.parametrize(("path", "sent"), WRONG)
async def test_no_refusal_shows_what_was_sent_or_where_it_was_read(house, refuse, images, path: str, sent: dict) -> None:
    def broken(_inputs: object) -> object:
        raise refuse("model_failed", f'Traceback: File "/src/x.py", {CANARY}')

    await house.serve("m")
    await house.serve("bad", compute=broken)
    await house.serve("picture", images.signature, images.compute)
    answer = await house.client.post(path, **sent)
    assert answer.status_code >= 400
    body = answer.json()
    assert not TELLTALE.search(answer.text), answer.text
    assert not TELLTALE.search(str(answer.headers))
    assert len(answer.content) < 5000
    if path.startswith("/v2"):
        assert body.keys() == {"error"}
        assert body["error"]
    else:
        refused(answer)


async def test_an_enormous_field_name_is_not_sent_back_whole(house) -> None:
    await house.serve("m")
    for body in ({"x" * 100_000: 1}, {"inputs": [{"y" * 100_000: 1}]}, {"inputs": {"z" * 100_000: [1]}}):
        answer = await house.client.post(PREDICT, json=body)
        assert answer.status_code == 400
        assert len(answer.content) < 2000
    for name in ("n" * 100_000, "ż" * 100_000):
        body = {"inputs": [{"name": name, "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}], "outputs": [{"name": name}]}
        answer = await house.client.post("/v2/models/m/infer", json=body)
        assert answer.status_code == 400
        assert len(answer.content) < 2000


PATHS = st.lists(
    st.sampled_from(
        ["v2", "models", "m", "infer", "versions", "1", "ready", "health", "live", "predict", "info", "", "..", "ż", "%"]
    ),
    max_size=7,
).map(lambda parts: "/" + "/".join(parts))


@settings(max_examples=60)
@given(
    method=st.sampled_from(["GET", "POST", "DELETE"]), path=PATHS, body=st.binary(max_size=30) | st.just(b'{"inputs":[[1,2]]}')
)
def test_no_path_is_too_odd_for_a_proper_answer(served_once, method: str, path: str, body: bytes) -> None:
    status, headers, content = served_once(method, path, body)
    assert status in {200, 400, 404, 405, 503}
    assert (b"allow" in headers) == (status == 405)
    assert b"x-request-id" in headers
    assert status == 200 or b'"error"' in content or b'"code"' in content


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/health", "/metrics", "/info"])
async def test_what_only_tells_takes_no_method_that_changes(house, path: str) -> None:
    await house.serve("m")
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = await house.client.request(method, path)
        assert (answer.status_code, refused(answer), answer.headers["allow"]) == (405, "method_not_allowed", "GET, HEAD")
    assert (await house.client.head(path)).status_code == 200
