"""Answers by a version other than the promoted one, through the whole door and each dialect."""

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest

from modelkeep.contracts.snapshot import DeploymentSettings
from modelkeep.serving.messages import Request

PREDICT = "/api/v1/predict/m"
V2 = "/v2/models/m"
ONE = {"inputs": [[1, 2]]}
V2_ONE = {"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}
HEADER = "X-Modelkeep-Version"


def times(factor: float) -> Callable[[dict], dict]:
    """A model whose answers say which it is."""
    return lambda inputs: {"sum": inputs["input"].sum(axis=1) * factor, "echo": inputs["input"]}


@pytest.fixture
async def m(house):
    """Version 1 is promoted and the champion, 2 is the canary, and each answers by its number times the sum."""
    await house.serve("m", compute=times(1), number=1)
    await house.alias("m", "champion", 1)
    await house.alias("m", "canary", 2, times(2))
    return house


def answered(answer: httpx.Response) -> int:
    """The version that answered: as the header says, and the body, and the answer itself."""
    assert answer.status_code == 200, answer.text
    body, number = answer.json(), int(answer.headers["x-model-version"])
    if "model_version" in body:
        assert body["model_version"] == str(number)
        total = next(one["data"] for one in body["outputs"] if one["name"] == "sum")
    else:
        assert body["version"] == number
        total = body["outputs"]["sum"]
    assert total == [3.0 * number]
    return number


@pytest.mark.parametrize(
    ("asked", "number"), [("1", 1), ("2", 2), ("champion", 1), ("canary", 2)], ids=["by 1", "by 2", "champion", "canary"]
)
async def test_every_place_of_every_dialect_takes_a_number_or_an_alias(m, asked: str, number: int) -> None:
    calls = [
        m.client.post(PREDICT, json=ONE, params={"version": asked}),
        m.client.post(PREDICT, json={**ONE, "version": asked}),
        m.client.post(PREDICT, json=ONE, headers={HEADER: asked}),
        m.client.post("/predict", json=ONE, params={"model": "m", "version": asked}),
        m.client.post("/predict", json=ONE, headers={HEADER: asked, "X-Modelkeep-Model": "m"}),
        m.client.post(f"{V2}/versions/{asked}/infer", json=V2_ONE),
        m.client.post(f"{V2}/infer", json=V2_ONE, headers={HEADER: asked}),
    ]
    assert [answered(one) for one in await asyncio.gather(*calls)] == [number] * len(calls)


async def test_a_whole_number_in_a_body_is_a_number_of_a_version(m) -> None:
    assert answered(await m.client.post(PREDICT, json={**ONE, "version": 2})) == 2


async def test_without_a_version_the_promoted_one_answers(m) -> None:
    assert answered(await m.client.post(PREDICT, json=ONE)) == 1
    assert answered(await m.client.post(PREDICT, json=ONE, headers={HEADER: ""})) == 1
    assert answered(await m.client.post(f"{V2}/infer", json=V2_ONE)) == 1


async def test_what_path_query_or_body_say_goes_before_the_header(m) -> None:
    header = {HEADER: "canary"}
    assert answered(await m.client.post(PREDICT, json=ONE, params={"version": "1"}, headers=header)) == 1
    assert answered(await m.client.post(PREDICT, json={**ONE, "version": 1}, headers=header)) == 1
    assert answered(await m.client.post(f"{V2}/versions/1/infer", json=V2_ONE, headers=header)) == 1


async def test_a_query_and_a_body_that_name_two_versions_are_refused(m) -> None:
    refused = await m.client.post(PREDICT, json={**ONE, "version": "canary"}, params={"version": 1})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (400, "two_versions")
    assert answered(await m.client.post(PREDICT, json={**ONE, "version": "canary"}, params={"version": 2})) == 2


@pytest.mark.parametrize("asked", ["3", "-1", "latest", "Canary", "canary ", "%00", "ü", "x" * 5000, "99999999999999999999999"])
async def test_any_other_version_is_not_served_and_the_sentence_says_what_to_do(m, asked: str) -> None:
    answers = [
        await m.client.post(PREDICT, json=ONE, params={"version": asked}),
        await m.client.post(PREDICT, json={**ONE, "version": asked}),
        await m.client.post(PREDICT, json=ONE, headers={HEADER: asked.encode()}),
    ]
    for answer in answers:
        if asked.strip() == "canary" and answer.status_code == 200:
            continue  # the client's HTTP library strips what surrounds a header's value
        assert (answer.status_code, answer.json()["code"]) == (404, "version_not_served")
        assert "alias" in answer.json()["detail"]
        assert "x" * 40 not in answer.text
    v2 = await m.client.post(f"{V2}/versions/7/infer", json=V2_ONE)
    assert v2.status_code == 404
    assert set(v2.json()) == {"error"}


@pytest.mark.parametrize("version", [True, 1.5, [], {}, [1]])
async def test_a_version_of_another_type_is_refused(m, version: object) -> None:
    refused = await m.client.post(PREDICT, json={**ONE, "version": version})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_json")


async def test_v2_describes_and_is_ready_for_each_version_that_can_be_asked(m) -> None:
    described = (await m.client.get(V2)).json()
    assert sorted(described["versions"]) == ["1", "2"]
    for asked, status in (("1", 200), ("canary", 200), ("3", 404)):
        assert (await m.client.get(f"{V2}/versions/{asked}")).status_code == status
        assert (await m.client.get(f"{V2}/versions/{asked}/ready")).status_code == status


async def test_the_header_counts_for_what_is_told_of_a_model(m) -> None:
    async def get(path: str, asked: str, **query: str) -> httpx.Response:
        return await m.client.get(path, headers={HEADER: asked}, params=query)

    await m.client.post(f"{V2}/versions/2/infer", json=V2_ONE)
    assert (await get("/info", "canary", model="m")).json()["version"] == 2
    assert (await get("/v1/models/m", "canary")).json()["model_version_status"][0]["version"] == "2"
    assert (await get("/v1/models/m/metadata", "2")).json()["model_spec"]["version"] == "2"
    assert [one["version"] for one in (await get(f"{V2}/stats", "canary")).json()["model_stats"]] == ["2"]
    for path in (V2, f"{V2}/ready", f"{V2}/config", f"{V2}/stats", "/v1/models/m", "/v1/models/m/metadata", "/info"):
        assert (await get(path, "canary", model="m")).status_code == 200, path
        assert (await get(path, "9", model="m")).status_code == 404, path
    assert (await get("/info", "9", model="m", version="canary")).json()["version"] == 2
    for path in (f"{V2}/versions/2", f"{V2}/versions/2/ready", "/v1/models/m/versions/2", "/v1/models/m/versions/2/metadata"):
        assert (await get(path, "9")).status_code == 200, path


async def test_info_tells_of_a_version_and_of_the_aliases(m) -> None:
    told = (await m.client.get("/info", params={"model": "m", "version": "canary"})).json()
    assert (told["version"], told["aliases"]) == (2, {"champion": 1, "canary": 2})
    assert (await m.client.get("/info", params={"model": "m"})).json()["version"] == 1
    assert (await m.client.get("/info", params={"model": "m", "version": "9"})).status_code == 404


async def test_the_record_names_the_version_that_answered_or_refused(m) -> None:
    m.records.clear()
    await m.client.post(PREDICT, json={**ONE, "version": "canary"})
    await m.client.post(PREDICT, json=ONE, headers={HEADER: "2"})
    await m.client.post(f"{V2}/versions/canary/infer", json=V2_ONE)
    await m.client.post(PREDICT, json={"inputs": [["no number", 1]], "version": "canary"})
    assert [(one.version_id, one.version, one.outcome) for one in m.records] == [
        ("m-2", 2, "ok"),
        ("m-2", 2, "ok"),
        ("m-2", 2, "ok"),
        ("m-2", 2, "rejected"),
    ]


async def test_each_version_is_counted_by_its_number_and_shown_with_its_deployment(m) -> None:
    await m.client.post(PREDICT, json=ONE)
    for _ in range(3):
        await m.client.post(PREDICT, json={**ONE, "version": "canary"})
    page = m.metrics.text().decode()
    assert 'modelkeep_predictions_total{deployment="m",version="1",outcome="ok"} 1.0' in page
    assert 'modelkeep_predictions_total{deployment="m",version="2",outcome="ok"} 3.0' in page
    assert page.count("modelkeep_model_info{") == 2
    assert 'modelkeep_replicas{deployment="m"} 2' in page


async def test_the_bound_on_what_is_under_way_is_one_for_all_versions(m) -> None:
    m.settings["m"] = DeploymentSettings(concurrency=1)
    m.publish()
    gate = m.gates["m-2"] = asyncio.Event()
    first = asyncio.create_task(m.client.post(PREDICT, json={**ONE, "version": "canary"}))
    while m.router.find("m").underway.count == 0:
        await asyncio.sleep(0)
    refused = await m.client.post(PREDICT, json=ONE)
    assert (refused.status_code, refused.json()["code"]) == (503, "deployment_concurrency")
    gate.set()
    assert answered(await first) == 2
    assert m.router.find("m").underway.count == 0
    assert answered(await m.client.post(PREDICT, json=ONE)) == 1


async def test_readiness_waits_for_no_alias_and_counts_its_version(house) -> None:
    await house.serve("m", compute=times(1))
    await house.alias("m", "canary", 2, wait=False)
    ready = await house.client.get("/readyz")
    assert (ready.status_code, ready.json()["models"]["ready"], ready.json()["models"]["loading"]) == (200, 1, 1)
    await house.connect("m-2", times(2))
    assert (await house.client.get("/readyz")).json()["models"]["ready"] == 2


async def test_no_request_is_lost_while_an_alias_moves_to_and_fro(m) -> None:
    await m.alias("m", "spare", 3, times(3))
    moving, answers = True, []

    async def ask() -> None:
        while moving:
            answers.append(await m.client.post(PREDICT, json={**ONE, "version": "canary"}))

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    for turn in range(40):
        seen = len(answers)
        await m.alias("m", "canary", 2 + turn % 2)
        while len(answers) < seen + 4:
            await asyncio.sleep(0)
    moving = False
    await asyncio.gather(*asking)
    assert {answered(one) for one in answers} == {2, 3}


async def test_small_predictions_without_asgi_take_the_header_too(m) -> None:
    told: list[object] = []
    body = json.dumps(ONE).encode()
    for name in (b"canary", b"nope"):
        done = asyncio.Event()

        def tell(response: object, done: asyncio.Event = done) -> None:
            told.append(response)
            done.set()

        headers = [(b"x-api-key", b"all"), (b"content-type", b"application/json"), (b"x-modelkeep-version", name)]
        m.door.predict_whole(Request("POST", PREDICT, headers), body, tell)
        await asyncio.wait_for(done.wait(), 5)
    statuses = [one.status for one in told]
    assert statuses == [200, 404]
    assert dict(told[0].headers)[b"x-model-version"] == b"2"
