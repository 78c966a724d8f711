"""Facts about rollouts."""

import msgspec

from modelkeep.contracts.traffic import Signal


class RolloutPromoted(msgspec.Struct, frozen=True):
    """A version has taken over."""

    rollout: str
    deployment: str
    version_id: str


class RolloutRolledBack(msgspec.Struct, frozen=True):
    """A version was taken back: for what was counted of this signal, or, without one, because a person said so."""

    rollout: str
    deployment: str
    version_id: str
    signal: Signal | None
    reason: str


class RolloutHeld(msgspec.Struct, frozen=True):
    """A step's time is over, and a person has to say how it goes on."""

    rollout: str
    deployment: str
    version_id: str
    reason: str


class RolloutWentOn(msgspec.Struct, frozen=True):
    """A rollout that was held goes on: a person said so."""

    rollout: str
    deployment: str
    version_id: str


class RolloutCancelled(msgspec.Struct, frozen=True):
    """A rollout is over without a decision: somebody has changed what it needs."""

    rollout: str
    deployment: str
    version_id: str
    reason: str
