"""Slow callers, by the watch's own clock: who is ended, and who is not."""

from dataclasses import dataclass, field

import pytest

from modelkeep.serving.pace import ANSWER, BODY, HEADERS, Pace, Watch


@dataclass(eq=False)
class Caller:
    """A connection by hand."""

    pace: Pace = field(default_factory=Pace)
    reading: bool = True
    unread: int = 0
    ended: int = 0

    def refuse_slow(self) -> None:
        self.ended += 1


def seconds(caller: Caller, count: int, *, body_rate: int = 1024, received: int = 0) -> int:
    """Look for so many seconds, with so many bytes in each; returns after how many it was ended, 0 for never."""
    watch = Watch(headers_s=10, body_rate=body_rate)
    for second in range(1, count + 1):
        caller.pace.received += received
        watch.look([caller], 1.0)
        if caller.ended:
            return second
    return 0


def test_a_head_has_its_time_however_many_bytes_come() -> None:
    assert seconds(Caller(), 60) == 10
    assert seconds(Caller(), 60, received=1) == 10


def test_each_request_has_its_own_time() -> None:
    caller = Caller()
    for _ in range(5):
        assert seconds(caller, 9) == 0
        caller.pace.phase = ANSWER
        assert seconds(caller, 100) == 0  # idle: not for the watch
        caller.pace.phase, caller.pace.received = HEADERS, 0


@pytest.mark.parametrize(("rate", "ended"), [(0, 11), (1, 11), (900, 11), (1000, 21), (1024, 0), (5000, 0)])
def test_a_body_has_to_come_at_the_least_rate_after_ten_seconds(rate: int, ended: int) -> None:
    """Bytes of the second before the first look count as well: 1000 a second are enough for the first ten."""
    caller = Caller()
    caller.pace.phase = BODY
    assert seconds(caller, 300, received=rate) == ended
    caller = Caller()
    caller.pace.phase = BODY
    assert seconds(caller, 300, received=rate, body_rate=0) == 0


def test_a_burst_is_no_pass_for_the_hours_after_it() -> None:
    caller = Caller()
    caller.pace.phase, caller.pace.received = BODY, 60 * 1024 * 1024
    assert seconds(caller, 300) == 21


def test_time_in_which_we_do_not_read_is_nobodys_fault() -> None:
    caller = Caller(reading=False)
    caller.pace.phase = BODY
    assert seconds(caller, 300) == 0
    caller.reading = True
    assert seconds(caller, 300) == 10


def test_an_answer_that_is_not_read_ends_after_a_minute_and_one_that_is_read_slowly_does_not() -> None:
    caller = Caller(unread=1000)
    caller.pace.phase = ANSWER
    assert seconds(caller, 200) == 61
    caller, watch = Caller(unread=1000), Watch(headers_s=10, body_rate=1024)
    caller.pace.phase = ANSWER
    for left in range(1000, 0, -1):
        caller.unread = left
        watch.look([caller], 1.0)
    assert caller.ended == 0
