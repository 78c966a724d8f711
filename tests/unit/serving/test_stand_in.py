"""The key that stands for callers without one: where it counts, for whom it does not, and that it is a key like any other."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.standings import through
from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import Forbidden, Unauthenticated
from modelkeep.contracts.snapshot import ServedKey
from modelkeep.serving.keys import Keys, StaleNews
from modelkeep.serving.messages import Request
from modelkeep.serving.stand_in import StandIn

DIGEST = hashlib.sha256(b"mk_stands_in").digest()
ROUTE = "/invocations"


class Clock:
    """Time that stands still until it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(clock: Clock) -> Keys:
    keys = Keys(max_staleness_s=60, clock=clock)
    keys.heard(clock.now)
    keys.replace([ServedKey("key_1", DIGEST, "vertex", through(Scope.PREDICT), 2000.0)])
    return keys


def asked(path: str = ROUTE, **headers: str) -> Request:
    return Request("POST", path, [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()])


def test_it_stands_for_who_shows_nothing_on_its_routes(keys: Keys) -> None:
    stand_in = StandIn(keys, DIGEST, [ROUTE, ""])
    assert stand_in.covers(asked(content_type="application/json", user_agent="platform"))
    assert stand_in.key(Scope.PREDICT).id == "key_1"


@pytest.mark.parametrize(
    "headers",
    [
        {"x_api_key": "mk_wrong"},
        {"x_api_key": ""},
        {"authorization": "Bearer mk_wrong"},
        {"authorization": "AWS4-HMAC-SHA256 Credential=x"},
        {"authorization": ""},
        {"origin": "http://elsewhere"},
        {"sec_fetch_site": "same-origin"},
    ],
)
def test_it_stands_for_nobody_who_shows_a_credential_or_is_a_web_page(keys: Keys, headers: dict[str, str]) -> None:
    assert not StandIn(keys, DIGEST, [ROUTE]).covers(asked(**headers))


@given(st.text(max_size=30).map("/".__add__) | st.sampled_from(["", "/invocations/", "//invocations", "/Invocations", "/v2"]))
def test_it_counts_on_no_other_path(path: str) -> None:
    stand_in = StandIn(Keys(max_staleness_s=60), DIGEST, [ROUTE, ""])
    assert stand_in.covers(asked(path)) == (path == ROUTE)


def test_where_none_is_named_nobody_is_stood_for(keys: Keys) -> None:
    assert not StandIn(keys, b"", [ROUTE]).covers(asked())


def test_it_expires_is_revoked_and_lacks_scopes_as_any_key(keys: Keys, clock: Clock) -> None:
    stand_in = StandIn(keys, DIGEST, [ROUTE])
    with pytest.raises(Forbidden):
        stand_in.key(Scope.MODELS_READ)
    clock.now = 2000.0
    with pytest.raises(StaleNews):
        stand_in.key(Scope.PREDICT)
    keys.heard(clock.now)
    with pytest.raises(Unauthenticated):
        stand_in.key(Scope.PREDICT)
    clock.now = 1000.0
    keys.replace([])
    with pytest.raises(Unauthenticated):
        stand_in.key(Scope.PREDICT)
