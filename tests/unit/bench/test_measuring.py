"""The bench measures what it says: latency from when a request was due, ratios within a round, and only right answers."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.artifacts import Question
from rig.beside import Beside
from rig.calls import Asking, Call, WrongAnswer
from rig.open_loop import Generator, timeline
from rig.overload import normal_after
from rig.ratios import paired

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n[0.25,1]"


class Stalling:
    """A server of one connection that answers at once, but for a pause before the answer to one of its requests."""

    def __init__(self, pause_s: float, at: int, answer: bytes = ANSWER) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._pause_s, self._at, self._answer = pause_s, at, answer
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _address = self._listening.accept()
        with connection:
            count = 0
            while connection.recv(65536):
                count += 1
                if count == self._at:
                    time.sleep(self._pause_s)  # the stall that is to be measured
                try:
                    connection.sendall(self._answer)
                except OSError:
                    return  # who asked is gone

    def close(self) -> None:
        self._listening.close()
        self._thread.join(5)


@pytest.fixture
def stalling() -> Iterator[Stalling]:
    server = Stalling(pause_s=0.3, at=20)
    yield server
    server.close()


def test_a_stall_is_charged_to_everybody_who_was_due_meanwhile(stalling: Stalling) -> None:
    wire = Call("/", {}, b"{}").wire()
    with closing(Generator(stalling.port, [wire], connections=1)) as generator:
        outcome = generator.run(rate=200, seconds=0.5, drain_s=5)
    figures = outcome.figures(rate=200, seconds=0.5)
    assert figures["by_status"] == {"200": 100}
    slow = np.frombuffer(outcome.done) - np.frombuffer(outcome.due) > 0.1
    assert 30 < slow.sum() < 60, "those due in the first 0.2 s of the stall waited more than 0.1 s"
    assert figures["good"]["p90_ms"] > 100
    assert figures["good_from_sent"]["p90_ms"] < 100, "one answer alone was slow"


def test_requests_that_are_never_answered_are_counted() -> None:
    server = Stalling(pause_s=1.0, at=3)
    with closing(Generator(server.port, [Call("/", {}, b"").wire()], connections=1)) as generator:
        outcome = generator.run(rate=50, seconds=0.2, drain_s=0.1)
    figures = outcome.figures(rate=50, seconds=0.2)
    assert figures["by_status"] == {"200": 2, "lost": 1}
    assert figures["unsent"] == 7
    server.close()


def test_a_wrong_number_is_not_taken_for_an_answer() -> None:
    server = Stalling(pause_s=0, at=0)
    asking = Asking(server.port, (Call("/", {}, b""),), lambda answer: answer, (Question(right=(0.25, 2.0)),))
    with pytest.raises(WrongAnswer, match=r"2\.0"):
        asking.check()
    server.close()


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=9), st.floats(0.01, 100))
def test_a_machine_that_changes_its_speed_does_not_change_a_paired_ratio(theirs: list[float], factor: float) -> None:
    found = paired([one * factor for one in theirs], theirs)
    assert found.median == pytest.approx(factor)
    assert found.low == pytest.approx(factor)
    assert found.high == pytest.approx(factor)


@given(st.lists(st.tuples(st.floats(0.1, 1e3), st.floats(0.1, 1e3)), min_size=1, max_size=9))
def test_the_interval_holds_the_median(pairs: list[tuple[float, float]]) -> None:
    found = paired([one for one, _ in pairs], [other for _, other in pairs])
    assert found.low <= found.median <= found.high


def test_figures_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired([1.0], [1.0, 2.0])


def test_the_time_back_to_normal_ends_with_the_first_of_some_normal_slices() -> None:
    due = np.arange(0, 2, 0.01)
    took = np.where(due < 0.95, 50.0, 1.0)
    good = np.ones(len(due), bool)
    slices = timeline(due, took, good, ~good)
    assert normal_after(slices, 1.0) == pytest.approx(1.0)
    assert normal_after(slices, 0.1) == -1.0


def test_what_goes_on_beside_is_repeated_until_the_block_ends_and_told(tmp_path):
    beat = tmp_path / "beat"
    other = Beside('echo >> "$BEAT"; sleep 0.01; (exit 3)', {"BEAT": str(beat)}, tmp_path / "log")
    for _ in range(2):
        before = len(other.ended)
        with other:
            until = time.monotonic() + 10
            while len(other.ended) < before + 3 and time.monotonic() < until:
                time.sleep(0.01)
        assert set(other.ended) == {3}
        beats = beat.read_bytes()
        time.sleep(0.1)  # long enough for ten more
        assert beat.read_bytes() == beats
