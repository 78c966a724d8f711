"""Keys: who may come in, and that nobody may once the news is too old."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.standings import through
from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import Forbidden, ModelkeepError, Unauthenticated
from modelkeep.contracts.snapshot import ServedKey
from modelkeep.infra.headers import presented_key
from modelkeep.serving.keys import Keys, StaleNews


class Clock:
    """Time that stands still until it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def served(secret: bytes, *scopes: Scope, expires_at: float | None = None) -> ServedKey:
    return ServedKey("key_1", hashlib.sha256(secret).digest(), "ci", through(*scopes), expires_at)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(clock: Clock) -> Keys:
    keys = Keys(max_staleness_s=60, clock=clock)
    keys.heard(clock.now)
    return keys


def test_a_known_key_with_the_scope_comes_in(keys: Keys) -> None:
    keys.replace([served(b"mk_one", Scope.PREDICT)])
    assert keys.check(b"mk_one", Scope.PREDICT).name == "ci"


def test_admin_includes_every_scope(keys: Keys) -> None:
    keys.replace([served(b"mk_one", Scope.ADMIN)])
    for scope in Scope:
        keys.check(b"mk_one", scope)


@pytest.mark.parametrize(
    ("presented", "scope", "refusal"),
    [
        (None, Scope.PREDICT, Unauthenticated),
        (b"", Scope.PREDICT, Unauthenticated),
        (b"mk_two", Scope.PREDICT, Unauthenticated),
        (b"mk_one ", Scope.PREDICT, Unauthenticated),
        (hashlib.sha256(b"mk_one").digest(), Scope.PREDICT, Unauthenticated),
        (b"mk_one", Scope.METRICS_READ, Forbidden),
        (b"mk_one", Scope.ADMIN, Forbidden),
    ],
)
def test_others_do_not(keys: Keys, presented: bytes | None, scope: Scope, refusal: type[ModelkeepError]) -> None:
    keys.replace([served(b"mk_one", Scope.PREDICT)])
    with pytest.raises(refusal) as refused:
        keys.check(presented, scope)
    assert "mk_" not in str(refused.value)


def test_a_key_ends_at_its_expiry(keys: Keys, clock: Clock) -> None:
    keys.replace([served(b"mk_one", Scope.PREDICT, expires_at=clock.now + 10)])
    clock.now += 9.9
    keys.check(b"mk_one", Scope.PREDICT)
    clock.now += 0.1
    with pytest.raises(Unauthenticated):
        keys.check(b"mk_one", Scope.PREDICT)


def test_newer_keys_replace_all_others(keys: Keys) -> None:
    keys.replace([served(b"mk_one", Scope.PREDICT)])
    keys.replace([served(b"mk_two", Scope.PREDICT)])
    keys.check(b"mk_two", Scope.PREDICT)
    with pytest.raises(Unauthenticated):
        keys.check(b"mk_one", Scope.PREDICT)


def test_nobody_comes_in_once_the_news_is_too_old_until_it_is_fresh_again(keys: Keys, clock: Clock) -> None:
    keys.replace([served(b"mk_one", Scope.PREDICT)])
    clock.now += 60
    keys.check(b"mk_one", Scope.PREDICT)
    clock.now += 0.1
    with pytest.raises(StaleNews) as refused:
        keys.check(b"mk_one", Scope.PREDICT)
    assert refused.value.retry_after_s
    keys.heard(clock.now - 1)
    keys.check(b"mk_one", Scope.PREDICT)
    assert keys.staleness_s == 1


def test_older_news_does_not_make_the_newest_older(keys: Keys, clock: Clock) -> None:
    keys.heard(clock.now - 100)
    assert keys.staleness_s == 0


def test_before_any_news_nobody_comes_in(clock: Clock) -> None:
    with pytest.raises(StaleNews):
        Keys(max_staleness_s=60, clock=clock).check(b"mk_one", Scope.PREDICT)


@given(st.lists(st.tuples(st.sampled_from([b"x-api-key", b"authorization", b"accept"]), st.binary(max_size=20))))
def test_no_header_is_too_odd_to_be_refused(headers: list[tuple[bytes, bytes]]) -> None:
    keys = Keys(max_staleness_s=1e12)
    keys.heard(1e12)
    with pytest.raises(Unauthenticated):
        keys.check(presented_key(dict(headers)), Scope.PREDICT)
