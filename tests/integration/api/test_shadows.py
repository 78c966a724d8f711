"""What servers have seen of shadows, kept and told: reports add up, and show nothing that the history does not hold."""

import httpx
import msgspec
import pytest

from fixtures.control import ADMIN, TestClock, ready_version
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.shadow import (
    DISTANCES,
    SECONDS,
    ClassPair,
    Compared,
    OutputSeen,
    ShadowSeen,
    SliceSeen,
    WorstRow,
)
from modelkeep.contracts.traffic import Split, Traffic
from modelkeep.control.shadows.service import Shadows

URL = "/api/v1/deployments/iris/shadow"
ROW = WorstRow("prd_1", 0, 1.0, differs=True, distance=0.5, primary={"y": 1.0}, shadow={"y": 2.0}, inputs={"a": 3.0})


def histogram(bounds: tuple[float, ...], **counts: int) -> tuple[int, ...]:
    """A histogram with so many in the class under the bound of each place."""
    return tuple(counts.get(f"at{at}", 0) for at in range(len(bounds) + 1))


COMPARED = Compared(
    requests=30,
    requests_differ=10,
    rows=40,
    differ=12,
    outputs=(
        OutputSeen("y", "numbers", 40, 12, histogram(DISTANCES, at0=40), histogram(DISTANCES, at0=20, at28=20), 1.5),
        OutputSeen("label", "labels", 40, 2, pairs=(ClassPair("a", "a", 38), ClassPair("a", "b", 2))),
    ),
    slices=(
        SliceSeen("a", None, 3.0, rows=20, differ=1),
        SliceSeen("a", 3.0, rows=20, differ=11),
        SliceSeen("b", category="x", rows=3, differ=3),
    ),
    worst=(ROW,),
)


@pytest.fixture
async def versions(control: ControlPlane) -> tuple[str, str]:
    """Two versions of a model, the first promoted and the second its shadow."""
    await control.models.create(ADMIN, "iris")
    one = (await ready_version(control, "iris")).id
    two = (await ready_version(control, "iris", b"another")).id
    await control.deployments.promote(ADMIN, "iris", 1)
    async with control.shadows._db.begin() as tx:
        held = await control.deployments.held_in(tx, ADMIN, "iris")
        await control.deployments.route_in(tx, ADMIN, held, Traffic(shadow=Split(two, 50.0)), trial=None)
    return one, two


def seen(versions: tuple[str, str], clock: TestClock, **values: object) -> ShadowSeen:
    now = clock().timestamp()
    whole = ShadowSeen(
        "shd_1",
        "server-1",
        "iris",
        versions[0],
        versions[1],
        50.0,
        now - 10,
        now,
        asked=40,
        dropped={"busy": 9},
        failed={"timeout": 1},
        primary_s=histogram(SECONDS, at4=30),
        shadow_s=histogram(SECONDS, at8=30),
        compared=COMPARED,
    )
    return msgspec.structs.replace(whole, **values)


async def test_a_report_is_told_in_numbers_to_compare_by(
    client: httpx.AsyncClient, control: ControlPlane, clock: TestClock, versions: tuple[str, str]
) -> None:
    await control.shadows.hear(seen(versions, clock))
    told = (await client.get(URL)).json()
    assert (told["version"], told["primary"], told["active"], told["share"], told["servers"]) == (2, 1, True, 50.0, 1)
    assert (told["asked"], told["requests"], told["rows"], told["differ"]) == (40, 30, 40, 12)
    assert told["agreement"] == pytest.approx(0.7)
    assert (told["dropped"], told["failed"]) == ({"busy": 9}, {"timeout": 1})
    assert told["disagreement"][0] < 0.3 < told["disagreement"][1]
    number, label = told["outputs"]
    assert number["absolute"] == {"p50": 0.0, "p90": 0.0, "p99": 0.0}
    assert number["relative"] == {"p50": 0.0, "p90": DISTANCES[28], "p99": DISTANCES[28]}
    assert number["histogram"] == [[0.0, 20], [DISTANCES[28], 20]]
    assert label["confused"] == [{"primary": "a", "shadow": "b", "rows": 2}]
    assert [(one["says"], one["differ"]) for one in told["slices"]] == [(">= 3", 11), ("< 3", 1)], "three rows tell nothing"
    assert told["primary_ms"]["p50"] == pytest.approx(1.0)
    assert told["shadow_ms"]["p99"] == pytest.approx(10.0)
    (worst,) = told["worst"]
    assert (worst["prediction"], worst["distance"], worst["inputs"]) == ("prd_1", 0.5, {"a": 3.0})


async def test_of_each_server_the_last_report_counts_and_those_of_several_add_up(
    client: httpx.AsyncClient, control: ControlPlane, clock: TestClock, versions: tuple[str, str]
) -> None:
    await control.shadows.hear(seen(versions, clock, asked=10, at=clock().timestamp() - 5))
    await control.shadows.hear(seen(versions, clock))
    await control.shadows.hear(seen(versions, clock, asked=5, at=clock().timestamp() - 1))  # late, and so of no use
    await control.shadows.hear(seen(versions, clock, id="shd_2", server="server-2"))
    told = (await client.get(URL)).json()
    assert (told["asked"], told["rows"], told["servers"], told["dropped"]) == (80, 80, 2, {"busy": 18})
    assert [one["rows"] for one in told["outputs"]] == [80, 80]
    assert told["outputs"][1]["confused"] == [{"primary": "a", "shadow": "b", "rows": 4}]
    assert [(one["rows"], one["differ"]) for one in told["slices"]] == [(40, 22), (40, 2)]


async def test_earlier_shadows_are_listed_and_told_by_their_number(
    client: httpx.AsyncClient, control: ControlPlane, clock: TestClock, versions: tuple[str, str]
) -> None:
    three = (await ready_version(control, "iris", b"a third")).id
    now = clock().timestamp()
    await control.shadows.hear(seen((versions[0], three), clock, id="shd_3", at=now, compared=Compared(5, 0, 5, 0)))
    await control.shadows.hear(seen(versions, clock, at=now - 60))
    found = (await client.get("/api/v1/deployments/iris/shadows")).json()["items"]
    assert [(one["version"], one["active"], one["rows"], one["agreement"]) for one in found] == [
        (3, False, 5, 1.0),
        (2, True, 40, 0.7),
    ]
    assert (await client.get(URL)).json()["version"] == 2, "the one that is asked now comes first"
    assert (await client.get(URL, params={"version": 3})).json()["rows"] == 5
    missing = await client.get(URL, params={"version": 1})
    assert (missing.status_code, missing.json()["code"]) == (404, "shadow_not_seen")


async def test_one_that_nothing_was_heard_of_is_not_found(client: httpx.AsyncClient, versions: tuple[str, str]) -> None:
    assert (await client.get(URL)).json()["code"] == "shadow_not_seen"
    assert (await client.get("/api/v1/deployments/iris/shadows")).json() == {"items": [], "next_cursor": None}
    assert (await client.get("/api/v1/deployments/none/shadow")).json()["code"] == "deployment_not_found"


async def test_rows_whose_predictions_have_left_the_history_are_shown_no_more_though_servers_tell_of_them(
    client: httpx.AsyncClient, control: ControlPlane, clock: TestClock, versions: tuple[str, str]
) -> None:
    fresh = msgspec.structs.replace(ROW, prediction="prd_2", at=clock().timestamp())
    both = msgspec.structs.replace(COMPARED, worst=(ROW, fresh))
    await control.shadows.hear(seen(versions, clock, compared=both))

    async def missing(ids: object) -> set[str]:
        return set(ids)  # type: ignore[call-overload,no-any-return]

    shadows: Shadows = control.shadows
    assert await shadows.forget_shown(missing) == 1
    assert [one["prediction"] for one in (await client.get(URL)).json()["worst"]] == ["prd_2"], "it may not be there yet"
    await control.shadows.hear(seen(versions, clock, at=clock().timestamp() + 5, compared=both))
    assert [one["prediction"] for one in (await client.get(URL)).json()["worst"]] == ["prd_2"]
    assert await shadows.forget_shown(missing) == 0
