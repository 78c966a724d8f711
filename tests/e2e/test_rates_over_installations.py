"""Two installations with two server processes each keep rates together through a Redis server, and each by itself without."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from fixtures.installation import Installation, eventually, installed
from fixtures.valkey import Valkey, valkey

ROWS = {"inputs": [[1.0, 0.0]]}
TRIES = 1000
HUNDRED = "100/min:100"
SHARED = "modelkeep_limits_shared"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey"), "s3cret") as found:
        yield found


def both(folder: Path, stack: ExitStack, redis_url: str) -> list[Installation]:
    """Two installations that bound an address's predictions, each with a model whose own rate is bound, too."""
    options = {
        "MODELKEEP_SERVER__PROCESSES": "2",
        "MODELKEEP_SERVER__TRUSTED_PROXIES": "127.0.0.1",
        "MODELKEEP_LIMITS__ADDRESS_RATE": HUNDRED,
        "MODELKEEP_LIMITS__REDIS_URL": redis_url,
    }
    houses = [stack.enter_context(installed(folder / name, **options)) for name in ("one", "two")]
    (folder / "quick.echo").write_text('{"echo": 1}')
    for house in houses:
        with house.client() as client:
            for name in ("quick", "bound"):
                client.push(folder / "quick.echo", name)
            client.configure("bound", {"rate": {"per_minute": 1, "burst": 100}})
            eventually(lambda client=client: all(len(one.raw["serving"]) == 2 for one in client.deployments()), "both answer")
    if redis_url:
        eventually(lambda: all(shown(house) == {"1.0"} for house in houses), "all four servers share")
    return houses


def shown(house: Installation) -> set[str]:
    """Whether rates are shared, as the page says; asked a few times, for any server may answer."""
    pages = [httpx.get(f"{house.url}/metrics", headers={"x-api-key": house.key}).text for _ in range(4)]
    return {line.split()[1] for page in pages for line in page.splitlines() if line.startswith(f"{SHARED} ")}


def passed(houses: list[Installation], deployment: str, times: int = TRIES, address: str = "") -> int:
    """How many tries are let through, by the installations in turn, over twelve connections to each: so by all processes."""
    came: Counter[int] = Counter()
    with ExitStack() as stack:
        clients = [
            stack.enter_context(httpx.Client(base_url=house.url, headers={"x-api-key": house.key}, timeout=30))
            for _ in range(12)
            for house in houses
        ]
        for number in range(times):
            headers = {"x-forwarded-for": address or f"10.0.{number // 250}.{number % 250}"}
            client = clients[number % len(clients)]
            came[client.post(f"/api/v1/predict/{deployment}", json=ROWS, headers=headers).status_code] += 1
    assert came.keys() <= {200, 429}, came
    return came[200]


def test_four_processes_of_two_installations_let_through_as_much_as_one(tmp_path: Path, server: Valkey) -> None:
    with ExitStack() as stack:
        houses = both(tmp_path, stack, server.url)
        begun = time.monotonic()
        let_through = passed(houses, "quick", address="192.0.2.1")
        due = 100 + (time.monotonic() - begun) / 0.6
        assert 0.95 * due <= let_through <= 1.05 * due
        assert 95 <= passed(houses, "bound") <= 105, "a deployment's rate, by callers from a thousand addresses"
        assert passed(houses, "quick", times=100) == 100, "nobody else is held up"

        server.stop()
        eventually(lambda: all(shown(house) == {"0.0"} for house in houses), "all four servers see that it is away")
        assert passed(houses, "quick", times=20, address="192.0.2.2") == 20
        assert passed(houses[:1], "bound", times=200) <= 102, "the installation's own rate holds"
        server.start()
        eventually(lambda: all(shown(house) == {"1.0"} for house in houses), "they share again")
        assert passed(houses, "bound", times=100) <= 8

        assert "s3cret" not in "".join(house.log.read_text() for house in houses)
        for house in houses:
            for role in ("server-1", "server-2", "api"):
                process = house.role(role)
                assert process is not None
                assert "s3cret" not in " ".join((*process.cmdline(), *process.environ().values()))


def test_without_sharing_each_installation_lets_through_as_much(tmp_path: Path) -> None:
    with ExitStack() as stack:
        houses = both(tmp_path, stack, "")
        assert passed(houses, "bound") in range(200, 203), "the control"
        assert not any(shown(house) for house in houses)
