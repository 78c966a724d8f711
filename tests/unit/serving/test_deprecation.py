"""The answers of a deprecated version say so, in every dialect, and those of any other do not."""

import json
from email.utils import parsedate_to_datetime

import pytest
from msgspec.structs import replace

from fixtures.rpcs import ONE, rpcs_of
from modelkeep.serving.notices import said_of

SINCE, END = 1_773_480_413.5, 1_782_777_600.0
PLAIN = {"sunset": "Tue, 30 Jun 2026 00:00:00 GMT", "deprecation": "@1773480413"}
SAID = {**PLAIN, "link": '</api/v1/models/m/versions/4>; rel="successor-version"'}
ROW = [[1, 2]]
DIALECTS = {
    "native": ("/api/v1/predict/m", {"inputs": ROW}),
    "Open Inference": (
        "/v2/models/m/infer",
        {"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]},
    ),
    "TensorFlow Serving rows": ("/v1/models/m:predict", {"instances": ROW}),
    "TensorFlow Serving columns": ("/v1/models/m:predict", {"inputs": ROW}),
    "MLflow": ("/invocations", {"inputs": ROW}),
    "Databricks": ("/serving-endpoints/m/invocations", {"inputs": ROW}),
    "Vertex": ("/vertex", {"instances": ROW}),
    "SageMaker": ("/endpoints/m/invocations", {"inputs": ROW}),
}


async def deprecated(house, **said: object) -> None:
    """Publish `m` anew, with this said of its deprecation."""
    version_id = house.deployments["m"]
    house.versions[version_id] = replace(house.versions[version_id], **said)
    house.publish()


async def said_by(house, dialect: str) -> dict[str, str]:
    url, body = DIALECTS[dialect]
    answer = await house.client.post(url, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    return {name: answer.headers[name] for name in SAID if name in answer.headers}


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_dialect_says_that_a_version_is_deprecated_from_the_next_snapshot_on(open_house, dialect: str):
    house = open_house(predict_route="/vertex", health_route="/vertex")
    await house.serve("m")
    assert await said_by(house, dialect) == {}
    await deprecated(house, deprecated_at=SINCE, sunset_at=END, successor=4)
    assert await said_by(house, dialect) == SAID
    await deprecated(house, deprecated_at=SINCE, sunset_at=None, successor=0)
    assert await said_by(house, dialect) == {"deprecation": PLAIN["deprecation"]}
    await deprecated(house, deprecated_at=None)
    assert await said_by(house, dialect) == {}


async def test_grpc_says_so_in_its_trailing_metadata(house):
    await house.serve("m")
    await deprecated(house, deprecated_at=SINCE, sunset_at=END, successor=4)
    async with rpcs_of(house) as rpcs:
        call = rpcs.begin("ModelInfer", ONE)
        await call
        told = dict(await call.trailing_metadata())
    assert {name: told[name] for name in SAID} == SAID


async def test_a_sunset_without_a_deprecation_is_not_told(house):
    await house.serve("m")
    await deprecated(house, sunset_at=END, successor=4)
    assert await said_by(house, "native") == {}


async def test_a_name_in_the_link_is_quoted_and_the_date_is_one(house):
    await house.serve("m")
    version = replace(house.versions[house.deployments["m"]], model='a>"b', deprecated_at=0.0, sunset_at=END, successor=2)
    said = dict(said_of(version))
    assert said[b"link"] == b'</api/v1/models/a%3E%22b/versions/2>; rel="successor-version"'
    assert said[b"deprecation"] == b"@0"
    assert parsedate_to_datetime(said[b"sunset"].decode()).timestamp() == END
