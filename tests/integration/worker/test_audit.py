"""What keeps the audit trail: nothing is lost on the way to a sink, whoever dies and whatever is away."""

import asyncio
import json
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from fixtures.control import ADMIN, TestClock
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.audit_chain import canonical, link, verify_file
from modelkeep.control.audit.tables import audit_checkpoints, audit_entries, audit_head, audit_marks
from modelkeep.infra.audit_sinks import FileSink, SyslogSink
from modelkeep.infra.db import Database
from modelkeep.worker.audit import Keeper, Sink


class Heard:
    """What the metrics are told."""

    entries = 0
    verified: float | None = None
    lags: dict[str, int] = {}  # noqa: RUF012 - replaced, never changed

    def audit(self, *, entries: int, verified: float | None, lags: dict[str, int]) -> None:
        self.entries, self.verified, self.lags = entries, verified, lags


class Flaky:
    """A sink that is away until it is let in, and may take lines and die before it says so."""

    name = "file"

    def __init__(self, inner: Sink) -> None:
        self.inner = inner
        self.away = False
        self.dies_after = False

    def take(self, lines: Sequence[bytes]) -> None:
        if self.away:
            raise OSError("no route")
        self.inner.take(lines)
        if self.dies_after:
            raise RuntimeError("killed here")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "log" / "audit.jsonl"


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def sink(copy: Path) -> Flaky:
    return Flaky(FileSink(copy, 1))


@pytest.fixture
def keeper(control: ControlPlane, clock: TestClock, sink: Flaky, heard: Heard) -> Keeper:
    return Keeper(control.audit, [sink], clock, told=heard)


async def make(control: ControlPlane, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await control.models.create(ADMIN, f"m{number}")


def numbers(copy: Path) -> list[int]:
    lines = [json.loads(line) for line in copy.read_bytes().splitlines()]
    return [line["record"]["seq"] for line in lines if "record" in line]


async def test_what_was_committed_reaches_the_file_in_order_with_checkpoints(
    control: ControlPlane, clock: TestClock, keeper: Keeper, copy: Path, heard: Heard
):
    await make(control, 1, 3)
    await keeper.round()
    await make(control, 4, 5)
    clock.advance(minutes=6)
    await keeper.round()
    await keeper.round()
    assert numbers(copy) == [1, 2, 3, 4, 5]
    report = verify_file(copy)
    assert (report.whole, report.checkpoints, report.last) == (True, 2, 5)
    assert b"key_test" not in copy.read_bytes()
    assert (heard.entries, heard.lags, heard.verified is not None) == (5, {"file": 0}, True)


async def test_while_a_sink_is_away_its_lag_grows_and_afterwards_nothing_is_missing(
    control: ControlPlane, keeper: Keeper, sink: Flaky, copy: Path, heard: Heard
):
    sink.away = True
    await make(control, 1, 4)
    with capture_logs() as logs:
        await keeper.round()
        await keeper.round()
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["audit_sink_is_away"]
    assert heard.lags == {"file": 4}
    sink.away = False
    await keeper.round()
    assert (numbers(copy), heard.lags) == ([1, 2, 3, 4], {"file": 0})


async def test_a_death_between_commit_sink_and_mark_loses_nothing(
    control: ControlPlane, clock: TestClock, keeper: Keeper, sink: Flaky, copy: Path, heard: Heard
):
    await make(control, 1, 3)
    sink.dies_after = True
    with pytest.raises(RuntimeError, match="killed"):
        await keeper.round()
    with copy.open("ab") as file:
        file.write(b'{"record":{"seq":4')  # and in the middle of a line
    await make(control, 4, 5)
    sink.dies_after = False
    clock.advance(minutes=2)  # the turn of the one that died is over
    await Keeper(control.audit, [sink], clock, told=heard).round()
    lines = [line for line in copy.read_bytes().splitlines() if line.endswith(b"}")]
    assert [json.loads(line)["record"]["seq"] for line in lines if b"record" in line] == [1, 2, 3, 1, 2, 3, 4, 5]
    assert verify_file(copy).whole


async def test_one_keeper_works_at_a_time(control: ControlPlane, clock: TestClock, keeper: Keeper, sink: Flaky, copy: Path):
    other = Keeper(control.audit, [sink], clock, told=Heard())
    await make(control, 1, 1)
    await keeper.round()
    await make(control, 2, 2)
    await other.round()
    assert numbers(copy) == [1]
    clock.advance(minutes=2)
    await other.round()
    assert numbers(copy) == [1, 2]


async def test_a_broken_chain_is_said_loudly_once_an_hour_and_verified_stays_old(
    control: ControlPlane, clock: TestClock, keeper: Keeper, db: Database, heard: Heard
):
    await make(control, 1, 4)
    await keeper.round()
    verified = heard.verified
    async with db.begin() as tx:
        await tx.execute(sa.update(audit_entries).where(audit_entries.c.seq == 2).values(action="model.read"))
    clock.advance(hours=25)
    with capture_logs() as logs:
        await keeper.round()
        await keeper.round()
        clock.advance(hours=1)
        await keeper.round()
    loud = [line for line in logs if line["log_level"] == "critical"]
    assert [line["event"] for line in loud] == ["audit_trail_is_broken"] * 2
    assert "edited: entry 2" in loud[0]["findings"][0]
    assert heard.verified == verified


async def test_entries_that_were_rewritten_after_they_were_seen_are_said_at_once_and_told_by_the_copy(
    control: ControlPlane, keeper: Keeper, db: Database, copy: Path, heard: Heard
):
    """With right hashes, without the checkpoints, and with a mark that went back, so that the copy gets them, too."""
    await make(control, 1, 4)
    await keeper.round()
    async with db.begin() as tx:
        rows = await control.audit.entries(limit=4)
        previous = rows[3].hash
        async for some in control.audit.sealed(after=1):
            for one in some:
                record = json.loads(one.record()) | {"action": "model.read"}
                previous = link(previous, canonical(record))
                change = sa.update(audit_entries).where(audit_entries.c.seq == one.seq)
                await tx.execute(change.values(action="model.read", hash=previous))
        await tx.execute(sa.update(audit_head).values(hash=previous))
        await tx.execute(sa.delete(audit_checkpoints))
        await tx.execute(sa.update(audit_marks).where(audit_marks.c.name == "file:entries").values(seq=1))
    verified = heard.verified
    assert (await control.audit.verify()).whole  # by itself the database tells nothing
    with capture_logs() as logs:
        await keeper.round()
        await keeper.round()
    (loud,) = [line for line in logs if line["log_level"] == "critical"]
    assert loud["findings"][0].startswith("rewritten: entry 4")
    assert heard.verified == verified
    assert ("rewritten", 2, 4) in [(one.kind, one.first, one.last) for one in verify_file(copy).findings]


class Stuck:
    """A sink that takes nothing until it is let."""

    name = "syslog"

    def __init__(self) -> None:
        self.let = threading.Event()

    def take(self, lines: Sequence[bytes]) -> None:
        self.let.wait(60)


async def test_a_sink_that_is_slow_holds_up_neither_checkpoints_nor_the_other(
    control: ControlPlane, clock: TestClock, sink: Flaky, copy: Path, heard: Heard
):
    stuck = Stuck()
    keeper = Keeper(control.audit, [stuck, sink], clock, told=heard, patience_s=0.01)
    await make(control, 1, 3)
    async with asyncio.timeout(30):
        while heard.lags != {"syslog": 3, "file": 0}:
            await keeper.round()
        clock.advance(minutes=6)
        await make(control, 4, 4)
        while not copy.exists() or verify_file(copy).checkpoints < 2:
            await keeper.round()
        stuck.let.set()
        while heard.lags != {"syslog": 0, "file": 0}:
            await keeper.round()
        await asyncio.gather(*keeper._under_way.values())  # what nobody waited for would outlive the database


async def test_contents_go_to_a_sink_only_where_that_is_wished(
    control: ControlPlane, clock: TestClock, sink: Flaky, copy: Path
):
    await make(control, 1, 1)
    await Keeper(control.audit, [sink], clock, told=Heard(), contents=True).round()
    (line, _checkpoint) = copy.read_bytes().splitlines()
    assert json.loads(line)["said"]["actor_name"] == "ada"
    assert verify_file(copy).whole


def test_a_full_file_is_put_aside_and_nothing_is_removed(tmp_path: Path):
    sink = FileSink(tmp_path / "audit.jsonl", 1)
    for number in range(5):
        sink.take([b"%d" % number + b"x" * 600_000 + b"\n"])
    parts = sorted(tmp_path.iterdir())
    assert len(parts) == 3
    assert sum(part.stat().st_size for part in parts) == 5 * 600_002
    assert all(part.stat().st_mode & 0o077 == 0 for part in parts)


@pytest.mark.parametrize("scheme", ["udp", "unix"])
def test_syslog_gets_a_message_a_datagram(scheme: str, tmp_path: Path):
    family, where = (socket.AF_INET, ("127.0.0.1", 0)) if scheme == "udp" else (socket.AF_UNIX, str(tmp_path / "log"))
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind(where)
        server.settimeout(10)
        address = f"udp://127.0.0.1:{server.getsockname()[1]}" if scheme == "udp" else f"unix://{where}"
        sink = SyslogSink(address)
        sink.take([b'{"record":1}\n', b'{"record":2}\n'])
        sink.close()
        first, second = server.recv(10_000), server.recv(10_000)
    assert first.startswith(b"<109>1 2")
    assert first.split(b" ", 7)[3] == b"modelkeep"
    assert (first.split(b" ", 7)[7], second.split(b" ", 7)[7]) == (b'{"record":1}', b'{"record":2}')


@pytest.mark.parametrize("scheme", ["udp", "unix"])
def test_what_is_too_long_for_a_datagram_goes_without_its_contents_and_stops_nothing(scheme: str, tmp_path: Path):
    family, where = (socket.AF_INET, ("127.0.0.1", 0)) if scheme == "udp" else (socket.AF_UNIX, str(tmp_path / "log"))
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind(where)
        server.settimeout(10)
        sink = SyslogSink(f"udp://127.0.0.1:{server.getsockname()[1]}" if scheme == "udp" else f"unix://{where}")
        long = json.dumps({"record": {"seq": 1}, "hash": "h", "copy": True, "said": {"after": "x" * 5_000_000}})
        sink.take([long.encode() + b"\n", b'{"record":2}\n'])
        sink.close()
        first, second = server.recv(10_000), server.recv(10_000)
    assert json.loads(first.split(b" ", 7)[7]) == {"record": {"seq": 1}, "hash": "h", "copy": True, "too_long": True}
    assert second.endswith(b'{"record":2}')


def test_syslog_over_tcp_counts_octets_and_a_server_that_hung_up_is_away():
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = SyslogSink(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        sink.take([b"{1}\n", b"{2}\n"])
        accepted, _from = server.accept()
        with accepted:
            got = accepted.recv(10_000)
        length, _space, rest = got.partition(b" ")
        assert rest[: int(length)].endswith(b" {1}")
        length, _space, rest = rest[int(length) :].partition(b" ")
        assert rest.endswith(b" {2}")
        assert len(rest) == int(length)
        with pytest.raises(OSError, match=r"hung up|reset|Broken"):
            sink.take([b"{3}\n"])
        sink.take([b"{3}\n"])  # on a connection of its own
        sink.close()
    with pytest.raises(ConnectionRefusedError):
        sink.take([b"{4}\n"])
