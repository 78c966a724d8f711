"""What an alert is at each moment, for every order in which it is raised, looked at and resolved."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from modelkeep.control.alerts.errors import AlertOver, InvalidAcknowledgement
from modelkeep.control.alerts.rules import (
    MOST_EVIDENCE,
    MOST_MINUTES,
    Alert,
    Evidence,
    News,
    Severity,
    State,
    acknowledged,
    again,
    fingerprint,
    opened,
    resolved,
)

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LABELS = {"kind": "rollout.rolled_back", "deployment": "iris", "model": "iris", "version": "2"}


def news(at: datetime, rollout: str = "rol_1") -> News:
    """News of the same thing each time."""
    return News(Severity.PAGE, "mdl_1", LABELS, f"title {rollout}", "text", Evidence(at, rollout, "/link"))


class Life(RuleBasedStateMachine):
    """An alert beside what a person would keep of it on paper."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.numbers = itertools.count(1)
        self.seen: list[str] = []
        self.looked_at_until: datetime | None = None
        self.over = False

    @initialize()
    def open(self) -> None:
        self.seen.append(f"rol_{next(self.numbers)}")
        self.alert = opened("alr_1", news(self.now, self.seen[-1]))

    @rule(minutes=st.floats(0.0, 2 * MOST_MINUTES))
    def time_passes(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)

    @rule()
    def it_is_the_moment_at_which_it_fires_again(self) -> None:
        self.now = max(self.now, self.looked_at_until or self.now)

    @rule(times=st.integers(1, 2 * MOST_EVIDENCE))
    def it_happens_again(self, times: int) -> None:
        for _ in range(times):
            rollout = f"rol_{next(self.numbers)}"
            if self.refused(lambda rollout=rollout: again(self.alert, news(self.now, rollout))):
                return
            self.seen.append(rollout)

    @rule(minutes=st.integers(-1, MOST_MINUTES + 1), by=st.sampled_from(["ada", "bob"]))
    def somebody_looks_at_it(self, minutes: int, by: str) -> None:
        before = self.alert
        if not self.refused(
            lambda: acknowledged(before, by, self.now, minutes=minutes), wrong=not 1 <= minutes <= MOST_MINUTES
        ):
            self.looked_at_until = self.now + timedelta(minutes=minutes)
            assert (self.alert.acknowledged_by, self.alert.acknowledged_at) == (by, self.now)

    @rule(why=st.sampled_from(["", "  ", "done"]))
    def it_is_resolved(self, why: str) -> None:
        before = self.alert
        if not self.refused(lambda: resolved(before, "ada", why, self.now), wrong=not why.strip()):
            self.over = True
            assert (self.alert.resolved_by, self.alert.resolved_at, self.alert.resolved_why) == ("ada", self.now, why)

    def refused(self, change, *, wrong: bool = False) -> bool:
        """Make a change; whether it was refused, as it has to be where the alert is over, or what is asked is wrong."""
        if self.over or wrong:
            with pytest.raises(AlertOver if self.over else InvalidAcknowledgement):
                change()
            return True
        self.alert = change()
        return False

    @invariant()
    def it_stands_as_it_should(self) -> None:
        alert: Alert | None = getattr(self, "alert", None)
        if alert is None:
            return
        looked_at = self.looked_at_until is not None and self.now < self.looked_at_until
        expected = State.RESOLVED if self.over else State.ACKNOWLEDGED if looked_at else State.FIRING
        assert alert.state(self.now) is expected

    @invariant()
    def it_is_counted_and_its_last_evidence_is_kept(self) -> None:
        alert: Alert | None = getattr(self, "alert", None)
        if alert is None:
            return
        assert alert.count == len(self.seen)
        assert [one.rollout for one in alert.evidence] == self.seen[-MOST_EVIDENCE:]
        assert alert.opened_at == START
        assert alert.last_at == alert.evidence[-1].at >= alert.opened_at
        assert alert.title == f"title {self.seen[-1]}"


TestLife = Life.TestCase


@given(st.permutations(list(LABELS.items())))
def test_a_fingerprint_is_of_the_labels_in_any_order(items: list[tuple[str, str]]):
    assert fingerprint(dict(items)) == fingerprint(LABELS)


_LABELS = st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=4)


@given(_LABELS, _LABELS)
def test_other_labels_have_another_fingerprint(one: dict[str, str], other: dict[str, str]):
    assert (fingerprint(one) == fingerprint(other)) == (one == other)
