"""What servers leave of their shadows comes up to the database: what is new, again where that failed, and no nonsense."""

import os
from pathlib import Path

import msgspec
import pytest

from modelkeep.contracts.errors import Unavailable
from modelkeep.contracts.shadow import ShadowSeen
from modelkeep.worker import shadow_reports
from modelkeep.worker.shadow_reports import ShadowReports


def left(folder: Path, name: str, asked: int, at: int) -> None:
    """Leave a report as a server does, of a time in seconds."""
    seen = ShadowSeen(name, "here", "m", "v1", "v2", 10.0, 0.0, float(at), asked=asked)
    file = folder / f"{name}.shadow"
    file.write_bytes(msgspec.msgpack.encode(seen))
    os.utime(file, (at, at))


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look whenever asked."""
    monkeypatch.setattr(shadow_reports, "_LOOK_EVERY_S", 0.0)


async def test_each_state_of_a_report_comes_up_once_and_old_files_go(tmp_path: Path) -> None:
    heard: list[tuple[str, int]] = []

    async def hear(seen: ShadowSeen) -> None:
        heard.append((seen.id, seen.asked))

    reports = ShadowReports(tmp_path, hear)
    await reports.carry()
    left(tmp_path, "shd_1", 1, 4_000_000_000)  # of now, or later: it is written to yet
    left(tmp_path, "shd_2", 2, 100)
    await reports.carry()
    await reports.carry()
    assert heard == [("shd_1", 1), ("shd_2", 2)]
    assert [file.name for file in tmp_path.iterdir()] == ["shd_1.shadow"], "nobody has touched the other one for long"
    left(tmp_path, "shd_1", 3, 4_000_000_001)
    await reports.carry()
    assert heard[2:] == [("shd_1", 3)]


async def test_what_could_not_be_kept_comes_up_again(tmp_path: Path) -> None:
    away, heard = True, []

    async def hear(seen: ShadowSeen) -> None:
        if away:
            raise Unavailable("The database is away.")
        heard.append(seen.id)

    reports = ShadowReports(tmp_path, hear)
    left(tmp_path, "shd_1", 1, 100)
    with pytest.raises(Unavailable):
        await reports.carry()
    assert (tmp_path / "shd_1.shadow").exists()
    away = False
    await reports.carry()
    assert heard == ["shd_1"]


async def test_what_is_no_report_is_passed_over(tmp_path: Path) -> None:
    heard: list[str] = []

    async def hear(seen: ShadowSeen) -> None:
        heard.append(seen.id)

    for name, content in {"a": b"", "b": b"\xff" * 99, "c": msgspec.msgpack.encode({"id": 3})}.items():
        (tmp_path / f"{name}.shadow").write_bytes(content)
    left(tmp_path, "shd_1", 1, 4_000_000_000)
    (tmp_path / "shd_2.new").write_bytes(b"half of i")
    await ShadowReports(tmp_path, hear).carry()
    assert heard == ["shd_1"]
