"""Access tokens at the doors of predictions: whose they are, as the newest snapshot has it, and when they open nothing."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.access import Grant, Role, Scope, Standing
from modelkeep.contracts.errors import Forbidden, Limited, Unauthenticated
from modelkeep.contracts.snapshot import Rate, ServedPerson, Signer, Snapshot, Trust, decode_snapshot, encode_snapshot
from modelkeep.infra.cookies import CsrfRefused, csrf_token
from modelkeep.infra.failures import Failures
from modelkeep.infra.site_key import SiteKey
from modelkeep.infra.tokens import ACCESS_LIFE, Issuer, Verifier
from modelkeep.serving import keys as module
from modelkeep.serving.gate import Gate
from modelkeep.serving.grpc.requests import RpcRequest
from modelkeep.serving.keys import Keys, StaleNews
from modelkeep.serving.messages import Request

START = datetime(2026, 1, 2, tzinfo=UTC)
ISSUER = Issuer(SiteKey(b"k" * 32))
SIGNER = ISSUER.new_key()
ADA = ServedPerson("ada", Standing("usr_ada", (Grant(Role.PREDICTOR, "installation"),)), Rate(100, 16), "user/usr_ada")
TRUST = Trust(ISSUER.names, (Signer(SIGNER.kid, SIGNER.public),), {"usr_ada": ADA})


class Clock:
    """Time that stands still until it is told."""

    now = START.timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(clock: Clock) -> Keys:
    keys = Keys(max_staleness_s=3600, clock=clock)
    keys.heard(clock.now)
    keys.replace([], TRUST)
    return keys


def token(user: str = "usr_ada", session: str = "ses_1", *, issuer: Issuer = ISSUER, key=SIGNER) -> bytes:
    return issuer.sign(key, user, session, now=START, until=START + ACCESS_LIFE).encode()


def test_a_token_opens_what_its_person_may_at_their_rate(keys: Keys):
    mine = token()
    found = keys.check(mine, Scope.PREDICT)
    assert (found.id, found.name, found.standing, found.rate, found.bucket) == (
        "ses_1", "ada", ADA.standing, Rate(100, 16), "user/usr_ada"
    )  # fmt: skip
    assert keys.check(mine, Scope.PREDICT) is found, "its signature was checked again"


def test_a_signature_is_checked_once_however_many_snapshots_come_and_not_for_who_fails_too_often(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
):
    checked, verified = [], Verifier.verified
    monkeypatch.setattr(Verifier, "verified", lambda self, *more: checked.append(1) or verified(self, *more))
    mine = token()
    keys.check(mine, Scope.PREDICT)
    keys.replace([], msgspec.structs.replace(TRUST, ended=frozenset({"ses_2"})))
    failures = Failures(Rate(60, 1), lambda: 0.0)
    gate = Gate(keys, failures=failures)
    gate.enter(asked(mine), Scope.PREDICT)
    assert len(checked) == 1
    failures.bad(None)  # whoever shares the address has failed
    for forged in (mine[:-8] + b"AAAAAAAA", token(session="ses_3"), token(session="ses_4")):
        with pytest.raises(Limited):
            gate.enter(asked(forged), Scope.PREDICT)
    assert len(checked) == 1
    gate.enter(asked(mine), Scope.PREDICT)  # what is known to be good goes on
    with pytest.raises(Limited):
        gate.enter(asked(b"mk_wrong.mk_wrong.mk_wrong"), Scope.PREDICT)
    assert len(checked) == 1


def test_a_cookie_of_a_browser_opens_what_its_page_asks_here_and_nothing_over_grpc(keys: Keys):
    mine, failures = token(), Failures(Rate(60, 2), lambda: 0.0)
    gate, kept = Gate(keys, failures=failures), b"__Host-modelkeep=" + mine
    page = [(b"cookie", kept), (b"x-csrf-token", csrf_token(mine).encode()), (b"sec-fetch-site", b"same-origin")]
    assert gate.enter(Request("POST", "/predict/m", page), Scope.PREDICT).id == "ses_1"
    rpc = RpcRequest.of_rpc("/inference/ModelInfer", [(name.decode(), value) for name, value in page])
    with pytest.raises(Unauthenticated):
        gate.enter(rpc, Scope.PREDICT)
    for method in ("GET", "POST"):  # a neighbour's page, which counts as a failure each time
        with pytest.raises(CsrfRefused if method == "GET" else Limited):
            gate.enter(Request(method, "/predict/m", [*page, (b"sec-fetch-site", b"same-site")]), Scope.PREDICT)


def asked(token: bytes) -> Request:
    return Request("POST", "/predict/m", [(b"authorization", b"Bearer " + token)])


def test_it_ends_with_its_time(keys: Keys, clock: Clock):
    mine = token()
    keys.check(mine, Scope.PREDICT)
    clock.now += ACCESS_LIFE.total_seconds()
    with pytest.raises(Unauthenticated):
        keys.check(mine, Scope.PREDICT)


@pytest.mark.parametrize(
    "trust",
    [
        msgspec.structs.replace(TRUST, ended=frozenset({"ses_1"})),
        msgspec.structs.replace(TRUST, people={}),
        msgspec.structs.replace(TRUST, signers=()),
        msgspec.structs.replace(TRUST, signers=(Signer(SIGNER.kid, SIGNER.public, START.timestamp()),)),
        msgspec.structs.replace(TRUST, issuers=("urn:modelkeep:other",)),
        Trust(),
    ],
    ids=["session ended", "person disabled", "key forgotten", "key's time over", "another installation", "snapshot of before"],
)
def test_the_next_snapshot_takes_it_back(keys: Keys, trust: Trust):
    mine = token()
    keys.check(mine, Scope.PREDICT)
    keys.replace([], trust)
    with pytest.raises(Unauthenticated):
        keys.check(mine, Scope.PREDICT)


def test_a_grant_that_was_taken_back_counts_no_more(keys: Keys):
    mine = token()
    keys.check(mine, Scope.PREDICT)
    nothing = msgspec.structs.replace(ADA, standing=Standing("usr_ada"))
    keys.replace([], msgspec.structs.replace(TRUST, people={"usr_ada": nothing}))
    assert keys.check(mine, Scope.PREDICT).standing.grants == ()


def test_nobody_comes_in_with_a_token_once_the_news_is_old(keys: Keys, clock: Clock):
    mine = token()
    clock.now += 3601
    with pytest.raises(StaleNews):
        keys.check(mine, Scope.PREDICT)


def test_no_key_of_somebody_else_signs_for_anyone_here(keys: Keys):
    other = Issuer(SiteKey(b"x" * 32))
    for forged in (
        token(issuer=other, key=other.new_key()),
        ISSUER.sign(ISSUER.new_key(), "usr_ada", "ses_1", now=START, until=START + ACCESS_LIFE).encode(),
    ):
        with pytest.raises(Unauthenticated):
            keys.check(forged, Scope.PREDICT)


@given(st.integers(0, 400), st.integers(1, 255))
def test_no_byte_of_a_token_may_be_another(at: int, change: int):
    keys = Keys(max_staleness_s=3600, clock=Clock())
    keys.heard(START.timestamp())
    keys.replace([], TRUST)
    bent = bytearray(token())
    bent[at % len(bent)] ^= change
    with pytest.raises(Unauthenticated):
        keys.check(bytes(bent), Scope.PREDICT)


@given(st.binary(max_size=300).map(lambda some: some + b"."))
def test_whatever_looks_like_a_token_is_refused_and_breaks_nothing(some: bytes):
    keys = Keys(max_staleness_s=3600, clock=Clock())
    keys.heard(START.timestamp())
    keys.replace([], TRUST)
    with pytest.raises(Unauthenticated):
        keys.check(some, Scope.PREDICT)


def test_refused_tokens_are_not_remembered_and_good_ones_not_without_end(keys: Keys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_MOST_TOKENS", 3)
    for number in range(10):
        keys.check(token(session=f"ses_{number}"), Scope.PREDICT)
        with pytest.raises(Unauthenticated):
            keys.check(token(user="usr_nobody", session=f"ses_{number}"), Scope.PREDICT)
        assert len(keys._tokens) <= 3


def test_a_person_may_no_more_by_a_token_than_they_may(keys: Keys):
    keys.check(token(), Scope.METRICS_READ)  # a token bounds nothing: what its person may, is decided where it is asked
    bounded = msgspec.structs.replace(ADA, standing=msgspec.structs.replace(ADA.standing, scopes=frozenset({Scope.PREDICT})))
    keys.replace([], msgspec.structs.replace(TRUST, people={"usr_ada": bounded}))
    with pytest.raises(Forbidden):
        keys.check(token(), Scope.METRICS_READ)


def test_a_snapshot_carries_what_tokens_are_checked_by():
    made = Snapshot(1, 0.0, trust=msgspec.structs.replace(TRUST, ended=frozenset({"ses_9"})))
    assert decode_snapshot(encode_snapshot(made)) == made
    assert decode_snapshot(msgspec.msgpack.encode({"number": 1, "made_at": 0.0})).trust == Trust()


def test_a_token_lives_no_longer_than_its_session():
    until = START + timedelta(minutes=5)
    made = ISSUER.sign(SIGNER, "u", "s", now=START, until=until).encode()
    claims = Verifier(TRUST.signers, ISSUER.names).verified(made, START.timestamp())
    assert claims.exp == until.timestamp()
