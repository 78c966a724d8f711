"""The one decision about who may do what."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.access import GIVES, INSTALLATION, OWNER, Grant, Place, Role, Scope, Standing, decide, reach, sees

_IDS = st.sampled_from(["a", "b", "c"])
_PLACES = st.one_of(
    st.just(INSTALLATION),
    st.builds(Place, workspace=_IDS),
    st.builds(Place, workspace=_IDS, model=_IDS, owner=st.sampled_from(["", "u", "v"])),
)
_GRANTS = st.one_of(
    st.builds(Grant, st.sampled_from(Role), st.just("installation")),
    st.builds(Grant, st.sampled_from(Role), st.sampled_from(["workspace", "model"]), _IDS),
)
_SCOPES = st.sampled_from(Scope)
_STANDINGS = st.builds(
    Standing,
    user=st.sampled_from(["u", "v"]),
    grants=st.lists(_GRANTS, max_size=3).map(tuple),
    scopes=st.none() | st.frozensets(_SCOPES),
    models=st.none() | st.frozensets(_IDS),
    active=st.booleans(),
)


def _allowed(standing: Standing, scope: Scope, place: Place) -> bool:
    return decide(standing, scope, place).allowed


@given(standing=_STANDINGS, scope=_SCOPES, place=_PLACES)
def test_the_decision_is_what_the_rules_say(standing: Standing, scope: Scope, place: Place):
    bounded = standing.scopes is None or bool(standing.scopes & {scope, Scope.ADMIN})
    here = standing.models is None or place.model in standing.models
    given_by_grant = any(
        scope in GIVES[grant.role]
        and {"installation": True, "workspace": grant.on == place.workspace, "model": grant.on == place.model}[grant.kind]
        for grant in standing.grants
    )
    by_owning = place.model != "" and place.owner == standing.user and scope in OWNER
    wanted = standing.active and bounded and here and (given_by_grant or by_owning)
    assert _allowed(standing, scope, place) == wanted


@given(standing=_STANDINGS, grant=_GRANTS, scope=_SCOPES, place=_PLACES)
def test_a_grant_takes_nothing_away(standing: Standing, grant: Grant, scope: Scope, place: Place):
    more = msgspec.structs.replace(standing, grants=(*standing.grants, grant))
    assert _allowed(more, scope, place) >= _allowed(standing, scope, place)


@given(standing=_STANDINGS, scopes=st.frozensets(_SCOPES), models=st.frozensets(_IDS), scope=_SCOPES, place=_PLACES)
def test_a_bound_adds_nothing(standing: Standing, scopes: frozenset[Scope], models: frozenset[str], scope: Scope, place: Place):
    free = msgspec.structs.replace(standing, scopes=None, models=None)
    for bounded in (msgspec.structs.replace(free, scopes=scopes), msgspec.structs.replace(free, models=models), standing):
        assert _allowed(bounded, scope, place) <= _allowed(free, scope, place)


@given(standing=_STANDINGS, scope=_SCOPES, place=_PLACES)
def test_whoever_has_no_grant_and_owns_nothing_here_may_nothing(standing: Standing, scope: Scope, place: Place):
    stranger = msgspec.structs.replace(standing, user="stranger", grants=())
    assert not _allowed(stranger, scope, place)
    assert not sees(stranger, place)


@given(standing=_STANDINGS, scope=_SCOPES, place=_PLACES)
def test_an_allowed_decision_names_the_grant_that_gives_it(standing: Standing, scope: Scope, place: Place):
    found = decide(standing, scope, place)
    assert (found.grant is not None) == (found.reason == "granted")
    assert found.allowed == (found.reason in {"granted", "owner"})
    if found.grant is not None:
        assert found.grant in standing.grants
        assert found.grant.covers(place)
        assert _allowed(msgspec.structs.replace(standing, grants=(found.grant,)), scope, place)


@given(standing=_STANDINGS, scopes=st.lists(_SCOPES, max_size=3), place=_PLACES.filter(lambda place: bool(place.model)))
def test_the_reach_holds_those_models_that_are_decided_for(standing: Standing, scopes: list[Scope], place: Place):
    assert reach(standing, scopes).holds(place) == any(_allowed(standing, scope, place) for scope in scopes)


@pytest.mark.parametrize("kind", ["workspace", "model"])
def test_a_grant_on_nothing_covers_nothing(kind: str):
    grant = Grant(Role.ADMIN, kind)  # type: ignore[arg-type] # drawn from the literal's values
    assert not grant.covers(INSTALLATION)
    assert not grant.covers(Place(workspace="a", model="b"))


def test_each_role_has_what_it_is_for_and_only_admins_administer():
    assert {role for role, scopes in GIVES.items() if Scope.ADMIN in scopes} == {Role.ADMIN}
    assert {role for role, scopes in GIVES.items() if Scope.MODELS_CODE in scopes} == {Role.TRUSTED, Role.ADMIN}
    assert {role for role, scopes in GIVES.items() if Scope.DEPLOYMENTS_WRITE in scopes} == {Role.RELEASER, Role.ADMIN}
    assert {role for role, scopes in GIVES.items() if Scope.MODELS_WRITE in scopes} == {
        Role.DEVELOPER,
        Role.TRUSTED,
        Role.ADMIN,
    }
    assert {role for role, scopes in GIVES.items() if Scope.PREDICT not in scopes} == {Role.VIEWER, Role.AUDITOR}
    assert all(Scope.MODELS_READ in scopes for scopes in GIVES.values())


def test_the_widest_grant_explains():
    grants = (Grant(Role.VIEWER, "model", "m"), Grant(Role.VIEWER, "installation"))
    assert decide(Standing("u", grants), Scope.MODELS_READ, Place("w", "m")).grant == grants[1]
