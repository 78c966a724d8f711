"""Versions come and go, and leave nothing behind: memory, descriptors and processes are as before.

LOADS says how often (`make soak`: 500); each is a promotion, which loads one version and unloads the other.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fixtures import artifacts
from fixtures.installation import Installation, eventually, installed

LOADS = int(os.environ.get("LOADS", "60"))
WARM_UP = 40
PATIENCE_S = 60 + 2.0 * LOADS
MAY_GROW = 1.05
_COMES_AND_GOES = 6

pytestmark = pytest.mark.timeout(PATIENCE_S + 120)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Installation]:
    with installed(tmp_path / "data") as installation:
        yield installation


def holds(house: Installation) -> dict[str, tuple[int, int]]:
    """Memory that is each long-lived process's own, in bytes, and its descriptors."""
    lasting = {name: house.role(name) for name in ("server", "courier", "api", "worker", "template")}
    processes = {name: one for name, one in lasting.items() if one is not None} | {"supervisor": house.supervisor}
    return {name: (one.memory_full_info().uss, one.num_fds()) for name, one in processes.items()}


def more_files(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> dict[str, int]:
    """How many more descriptors each process has, where they are more than what comes and goes.

    That is a runner that is being forked ahead, and connections of the database's pool. What a load leaves behind, all leave.
    """
    more = {name: fds - before[name][1] for name, (_memory, fds) in after.items()}
    return {name: number for name, number in more.items() if number > _COMES_AND_GOES}


def promoted(house: Installation, times: int) -> None:
    """Let the two versions take turns; after each turn the other's runner has ended."""
    with house.client() as client:
        for turn in range(times):
            number = turn % 2 + 1
            client.promote("m", number)
            client.wait_serving("m", number)
            assert client.predict("m", [[1.0, 2.0, 3.0, 4.0]]).version == number


def test_as_much_is_held_after_many_loads_as_before(house: Installation, tmp_path: Path) -> None:
    model = artifacts.classifier()
    with house.client() as client:
        for factor in (0, 1):
            (tmp_path / "m.joblib").write_bytes(artifacts.as_joblib(model, compress=factor))
            client.push(tmp_path / "m.joblib", "m", compile="off")
        client.configure("m", {"bake_s": 0})
    promoted(house, WARM_UP)
    before = holds(house)
    promoted(house, LOADS)
    eventually(lambda: len(house.runners()) == 1, "one runner")
    after = holds(house)
    print("\n".join(f"{name}: {before[name]} -> {after[name]}" for name in before))
    total = sum(memory for memory, _fds in before.values())
    assert sum(memory for memory, _fds in after.values()) <= MAY_GROW * total
    assert more_files(before, after) == {}
    assert all(psutil.pid_exists(one.pid) for one in house.runners())
