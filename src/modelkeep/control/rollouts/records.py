"""What is kept of a rollout's way: its steps, what happened to it, and its evidence as it came."""

from datetime import datetime

import msgspec

from modelkeep.control.rollouts.judging import Numbers, ServerCounts, StepCounts
from modelkeep.control.rollouts.rules import Rollout


class StepRecord(msgspec.Struct, frozen=True):
    """A step, what servers have counted in it, and how it ended ("" while it lasts). `numbers`: what was known at its end.

    Whether it is in the `shadow` is not written down with it: the plan says so.
    """

    step: int
    percent: float
    started_at: datetime
    servers: dict[str, ServerCounts] = {}
    ended_at: datetime | None = None
    decision: str = ""
    numbers: dict[str, Numbers] = {}
    shadow: bool = False

    @property
    def counts(self) -> StepCounts:
        """Return what its evidence is made of."""
        return StepCounts(self.percent / 100.0, self.servers, self.shadow)


class Happened(msgspec.Struct, frozen=True):
    """Something that happened to a rollout: what, by whom, why, and what was known then."""

    at: datetime
    what: str
    by: str
    step: int
    reason: str = ""
    numbers: dict[str, Numbers] = {}


class Shown(msgspec.Struct, frozen=True, array_like=True):
    """What was known of a signal at a moment, as far as it is drawn."""

    log_e: float
    log_not_worse: float
    upper: float
    requests: int
    bad: int
    others: int
    others_bad: int

    @classmethod
    def of(cls, one: Numbers) -> "Shown":
        """Return what is drawn of these numbers."""
        log_e = max(one.log_e, one.log_local)
        return cls(log_e, one.log_not_worse, one.upper, one.requests, one.bad, one.others, one.others_bad)


class Point(msgspec.Struct, frozen=True):
    """What was known at a moment, by signal."""

    at: datetime
    step: int
    shown: dict[str, Shown]


class Story(msgspec.Struct, frozen=True):
    """A rollout with its steps, what is known of each signal now, and what happened to it."""

    rollout: Rollout
    steps: list[StepRecord]
    numbers: dict[str, Numbers]
    events: list[Happened]
