"""The spool: whatever happens to its files, a record is read whole, once and in order, or is known to be missing."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fixtures.history import record
from modelkeep.contracts.prediction import PredictionRecord
from modelkeep.infra.spool import HistoryFull, Position, SpoolInUse, SpoolReader, SpoolWriter, segments

START = Position()
SIZES = st.lists(st.integers(0, 300), min_size=1, max_size=8)
BATCHES = st.lists(SIZES, min_size=1, max_size=5)


def numbered(number: int, size: int = 10) -> PredictionRecord:
    return record(id=f"prd_{number:026d}", inputs=b"x" * size, outputs=None)


def read_all(folder: Path, position: Position = START, step: int = 4 << 20) -> tuple[list[str], int, int, Position]:
    """Read to the end in steps of this many bytes; return ids, what was lost, torn ends and the position."""
    ids, lost, torn = [], 0, 0
    reader = SpoolReader(folder)
    while True:
        read = reader.read(position, step)
        ids += [msgspec.msgpack.decode(raw, type=PredictionRecord).id for raw in read.records]
        lost, torn, position = lost + read.lost, torn + read.torn, read.position
        if not read.more:
            return ids, lost, torn, position


def fill(folder: Path, batches: list[list[int]], **options: int) -> list[str]:
    writer = SpoolWriter(folder, **options)
    ids = []
    for batch in batches:
        records = [numbered(len(ids) + at, size) for at, size in enumerate(batch)]
        writer.append(records)
        ids += [one.id for one in records]
    assert (writer.appended, writer.dropped) == (len(ids), 0)
    writer.close()
    return ids


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@given(batches=BATCHES, segment=st.integers(1, 4000), step=st.integers(1, 3000))
def test_what_was_appended_is_read_in_order_in_steps_of_any_size(batches: list[list[int]], segment: int, step: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        ids = fill(Path(place), batches, segment_bytes=segment)
        assert read_all(Path(place), step=step)[:3] == (ids, 0, 0)


@given(data=st.data(), batches=BATCHES, step=st.integers(1, 3000), successor=st.booleans())
def test_a_file_cut_at_any_byte_gives_its_whole_records_and_no_other(
    data: st.DataObject, batches: list[list[int]], step: int, successor: bool
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        ids = fill(folder, batches)
        [segment] = segments(folder)
        cut = data.draw(st.integers(0, segment.size()))
        os.truncate(segment.path, cut)
        later = fill_on(folder, 2) if successor else []
        found, lost, torn, _position = read_all(folder, step=step)
        assert lost == 0
        kept = found[: len(found) - len(later)]
        assert kept == ids[: len(kept)]
        assert found[len(kept) :] == later
        whole = sum(end <= cut for end in _ends(batches))
        assert len(kept) == whole
        assert torn == int(successor and cut not in {0, *_ends(batches)})


def fill_on(folder: Path, count: int) -> list[str]:
    writer = SpoolWriter(folder)
    records = [numbered(900 + at) for at in range(count)]
    writer.append(records)
    writer.close()
    return [one.id for one in records]


def _ends(batches: list[list[int]]) -> list[int]:
    """Where each frame ends."""
    ends, at = [], 0
    for size in (size for batch in batches for size in batch):
        at += 16 + len(msgspec.msgpack.encode(numbered(0, size)))
        ends.append(at)
    return ends


@settings(max_examples=300)
@given(data=st.data(), batches=BATCHES, step=st.integers(1, 3000), flips=st.integers(1, 4))
def test_flipped_bits_cost_the_records_they_hit_and_each_is_counted(
    data: st.DataObject, batches: list[list[int]], step: int, flips: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        ids = fill(folder, batches)
        [segment] = segments(folder)
        content = bytearray(segment.path.read_bytes())
        hit = set()
        for _ in range(flips):
            byte = data.draw(st.integers(0, len(content) - 1))
            content[byte] ^= 1 << data.draw(st.integers(0, 7))
            hit.add(byte)
        whole = bytearray(segment.path.read_bytes())
        segment.path.write_bytes(content)
        fill_on(folder, 1)
        found, lost, torn, _position = read_all(folder, step=step)
        found = found[:-1]
        starts = [0, *_ends(batches)]
        spared = [
            one for at, one in enumerate(ids) if content[starts[at] : starts[at + 1]] == whole[starts[at] : starts[at + 1]]
        ]
        assert found == spared
        last_is_hit = bool(spared != ids and (not spared or spared[-1] != ids[-1]))
        tail = len(ids) - 1 - ids.index(spared[-1]) if spared else len(ids)
        assert lost == len(ids) - len(spared) - tail
        assert torn == int(last_is_hit)


def test_a_frame_inside_a_record_is_no_record(folder: Path) -> None:
    writer = SpoolWriter(folder)
    writer.append([numbered(1)])
    [segment] = segments(folder)
    stolen = segment.path.read_bytes()  # what nobody outside knows: a frame of this very run
    writer.close()
    second = SpoolWriter(folder)
    second.append([record(id="prd_outer", inputs=stolen), numbered(2)])
    second.close()
    damaged = segments(folder)[1].path
    content = bytearray(damaged.read_bytes())
    content[5] ^= 0xFF  # the outer frame's length
    damaged.write_bytes(content)
    fill_on(folder, 1)
    ids, lost, _torn, _position = read_all(folder)
    assert ids == [numbered(1).id, numbered(2).id, numbered(900).id]
    assert lost == 1


def test_a_reader_waits_for_the_rest_of_a_frame_that_is_being_written(folder: Path) -> None:
    writer = SpoolWriter(folder)
    writer.append([numbered(1), numbered(2)])
    [segment] = segments(folder)
    whole = segment.path.read_bytes()
    os.truncate(segment.path, len(whole) - 3)
    ids, lost, torn, position = read_all(folder)
    assert (ids, lost, torn) == ([numbered(1).id], 0, 0)
    segment.path.write_bytes(whole)
    assert read_all(folder, position)[0] == [numbered(2).id]
    writer.close()


def test_at_the_cap_records_are_dropped_and_counted_until_the_reader_has_made_room(folder: Path) -> None:
    writer = SpoolWriter(folder, segment_bytes=1000, cap_bytes=4000)
    for number in range(30):
        writer.append([numbered(number, 100)])
    assert writer.dropped > 0
    assert writer.appended + writer.dropped == 30
    assert sum(segment.size() for segment in segments(folder)) <= 4000
    assert writer.full
    ids, lost, torn, position = read_all(folder)
    assert len(ids) == writer.appended
    assert (lost, torn) == (0, 0)
    SpoolReader(folder).forget(position)
    writer._looked = 0.0
    writer.append([numbered(99, 100)])
    assert read_all(folder, position)[0] == [numbered(99).id]
    writer.close()


def test_where_nothing_may_be_lost_a_full_spool_refuses(folder: Path) -> None:
    writer = SpoolWriter(folder, segment_bytes=1000, cap_bytes=1000, refuse=True)
    with pytest.raises(HistoryFull):
        for number in range(30):
            writer.append([numbered(number, 100)])
    assert (writer.refused, writer.dropped) == (1, 0)
    assert len(read_all(folder)[0]) == writer.appended
    writer.close()


DISK_FULL = """
import resource, sys
from pathlib import Path
from fixtures.history import record
from modelkeep.infra.spool import SpoolWriter, segments
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
writer = SpoolWriter(Path(sys.argv[1]))
for number in range(0, 40, 4):
    writer.append([record(id=f"prd_{number + at:026d}", inputs=b"x" * 100) for at in range(4)])
print(writer.appended, writer.dropped, writer.trouble)
"""


def test_a_write_that_comes_to_an_end_halfway_is_finished_in_a_segment_of_its_own(folder: Path) -> None:
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(folder)], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split()[:2] == ["40", "0"]
    ids, lost, torn, _position = read_all(folder)
    assert ids == [f"prd_{number:026d}" for number in range(40)]
    assert lost == 0
    assert torn > 0


def test_a_full_disk_is_counted_and_the_spool_goes_on_when_there_is_room(folder: Path) -> None:
    writer = SpoolWriter(folder)
    writer.append([numbered(1)])
    full = os.open("/dev/full", os.O_WRONLY)
    proper, writer._fd = writer._fd, full
    writer.append([numbered(2), numbered(3)])
    assert (writer.appended, writer.dropped) == (1, 2)
    assert writer.trouble == "No space left on device"
    os.close(full)
    writer._fd = proper
    writer.append([numbered(4)])
    assert read_all(folder)[:3] == ([numbered(1).id, numbered(4).id], 0, 0)
    writer.close()


def test_a_spool_has_one_writer(folder: Path) -> None:
    writer = SpoolWriter(folder)
    with pytest.raises(SpoolInUse):
        SpoolWriter(folder)
    writer.close()
    SpoolWriter(folder).close()


WRITER = """
import os, sys
from pathlib import Path
from fixtures.history import record
from modelkeep.infra.spool import SpoolWriter
writer = SpoolWriter(Path(sys.argv[1]), segment_bytes=20000)
number = int(sys.argv[2])
while True:
    writer.append([record(id=f"prd_{number:026d}"), record(id=f"prd_{number + 1:026d}")])
    number += 2
    os.write(1, b"%d\\n" % number)  # what was appended by now is what a caller could have been told
"""


def test_what_was_appended_before_kill_9_is_there(folder: Path) -> None:
    number = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(number)],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout is not None
        for _ in range(300):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        answered = int(rest[-1]) if rest else 0
        ids, lost, _torn, _position = read_all(folder)
        assert lost == 0
        assert len(ids) >= answered
        assert ids == [f"prd_{at:026d}" for at in range(len(ids))]
        number = len(ids)


def test_a_spool_that_is_left_behind_is_removed_when_it_has_been_read(folder: Path) -> None:
    fill(folder, [[1, 2]])
    reader = SpoolReader(folder)
    assert not reader.remove_if_left(Position(), for_s=0)
    position = read_all(folder)[3]
    assert not reader.remove_if_left(position)
    with_writer = SpoolWriter(folder)
    assert not reader.remove_if_left(position, for_s=0)
    with_writer.close()
    assert reader.remove_if_left(position, for_s=0)
    assert not folder.exists()


class SpoolStory(RuleBasedStateMachine):
    """Append, die, start again, damage nothing: the reader has read exactly what was appended, in order, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name) / "spool"
        self.writer: SpoolWriter | None = SpoolWriter(self.folder, segment_bytes=700)
        self.position = Position()
        self.number = 0
        self.appended: list[str] = []
        self.loaded: list[str] = []

    @precondition(lambda self: self.writer is not None)
    @rule(sizes=SIZES)
    def append(self, sizes: list[int]) -> None:
        assert self.writer is not None
        records = [numbered(self.number + at, size) for at, size in enumerate(sizes)]
        self.number += len(records)
        self.writer.append(records)
        self.appended += [one.id for one in records]

    @precondition(lambda self: self.writer is not None)
    @rule(torn=st.binary(max_size=30))
    def die(self, torn: bytes) -> None:
        """A killed writer may leave the beginning of a frame behind."""
        assert self.writer is not None
        found = segments(self.folder)
        if found and self.writer._fd >= 0:
            with found[-1].path.open("ab") as file:
                file.write(torn)
        self.writer.close()
        self.writer = None

    @precondition(lambda self: self.writer is None)
    @rule()
    def start(self) -> None:
        self.writer = SpoolWriter(self.folder, segment_bytes=700)

    @rule(step=st.integers(1, 2000), forget=st.booleans())
    def load(self, step: int, forget: bool) -> None:
        ids, lost, _torn, self.position = read_all(self.folder, self.position, step)
        self.loaded += ids
        assert lost == 0
        assert self.loaded == self.appended
        if forget:
            SpoolReader(self.folder).forget(self.position)

    @invariant()
    def nothing_is_dropped(self) -> None:
        assert self.writer is None or self.writer.dropped == 0

    def teardown(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.place.cleanup()


SpoolStory.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestSpoolStory = SpoolStory.TestCase
