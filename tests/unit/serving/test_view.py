"""What is remembered of decisions: no more than there is to decide, and of no standing but the one that was asked about."""

from types import SimpleNamespace
from typing import cast

import pytest
from msgspec.structs import replace

from modelkeep.contracts.access import Grant, Place, Role, Scope, Standing
from modelkeep.contracts.errors import Forbidden
from modelkeep.contracts.snapshot import ServedDeployment, ServedKey, Snapshot
from modelkeep.serving.router import DeploymentNotFound, Router
from modelkeep.serving.view import Doors

THERE = ServedDeployment("m", "ver_1", 1, place=Place("wsp_a", "mod_m"))


def doors_over(snapshot: Snapshot) -> tuple[Doors, SimpleNamespace]:
    router = SimpleNamespace(snapshot=snapshot)
    return Doors(cast("Router", router)), router


def key(*roles: Role) -> ServedKey:
    grants = tuple(Grant(role, "model", "mod_m") for role in roles)
    return ServedKey("key_1", b"", "k", Standing("usr_1", grants, frozenset({Scope.PREDICT, Scope.MODELS_READ})))


def test_names_that_callers_invent_are_not_remembered():
    doors, _router = doors_over(Snapshot(1, 0.0, deployments=(THERE,)))
    for number in range(1000):
        with pytest.raises(DeploymentNotFound):
            doors.check(key(Role.PREDICTOR), f"invented-{number}")
    assert len(doors._decided) == 0
    doors.check(key(Role.PREDICTOR), "m")
    assert len(doors._decided) == 1


def test_what_a_key_could_before_says_nothing_of_what_it_may_now():
    """A request that began before the snapshot, with the key as it was then, is decided after it."""
    doors, router = doors_over(Snapshot(1, 0.0, deployments=(THERE,)))
    before, now = key(Role.PREDICTOR), key(Role.VIEWER)
    doors.check(before, "m")
    router.snapshot = Snapshot(2, 0.0, deployments=(THERE,))
    doors.check(before, "m")
    with pytest.raises(Forbidden):
        doors.check(now, "m")
    nothing = key()
    with pytest.raises(DeploymentNotFound):
        doors.check(nothing, "m")
    doors.check(before, "m")


def test_a_decision_is_made_once_a_snapshot(monkeypatch: pytest.MonkeyPatch):
    from modelkeep.serving import view

    asked: list[Scope] = []
    decide = view.decide
    monkeypatch.setattr(view, "decide", lambda standing, scope, place: asked.append(scope) or decide(standing, scope, place))
    doors, router = doors_over(Snapshot(1, 0.0, deployments=(THERE,)))
    mine = key(Role.PREDICTOR)
    for _again in range(3):
        doors.check(mine, "m")
    assert len(asked) == 1
    router.snapshot = Snapshot(2, 0.0, deployments=(THERE,))
    doors.check(mine, "m")
    assert len(asked) == 2


def test_sessions_of_one_person_are_one_decision_and_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("modelkeep.serving.view._MOST_DECIDED", 5)
    doors, _router = doors_over(Snapshot(1, 0.0, deployments=(THERE,)))
    mine = key(Role.PREDICTOR)
    for number in range(100):
        doors.check(replace(mine, id=f"ses_{number}"), "m")
    assert len(doors._decided) == 1
    for _again in range(100):
        doors.check(key(Role.PREDICTOR), "m")
        with pytest.raises(Forbidden):
            doors.check(key(Role.VIEWER), "m")
        assert len(doors._decided) <= 5
