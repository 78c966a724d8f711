"""API keys that go with client certificates: who may say so, which key a certificate stands for, and since when no more."""

import asyncio

import msgspec
import pytest

from fixtures.control import Rings, TestClock
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Scope, Standing
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.certificates import KeyCertificate, ShownCertificate
from modelkeep.contracts.errors import (
    CertificateExpired,
    CertificateUnclear,
    Forbidden,
    Invalid,
    Unauthenticated,
    WrongCertificate,
    WrongNetwork,
)
from modelkeep.control.access.errors import LastAdmin
from modelkeep.control.users.errors import CertificateInUse, KeyNotFound
from modelkeep.control.users.rules import Kind, User, certificate_of
from modelkeep.control.users.service import IssuedKey
from modelkeep.infra.db import Database

PREDICT = frozenset({Scope.PREDICT})
SCORING, OTHER = "uri:spiffe://example.org/scoring", "dns:other.example.org"


@pytest.fixture
async def admin(control: ControlPlane, clock: TestClock) -> Actor:
    token = await control.users.ensure_setup_token(clock())
    assert token is not None
    _user, issued = await control.users.set_up(token, "ada")
    await control.users.add(
        await control.access.authenticate(issued.secret.reveal()), User("usr_robot", "robot", clock(), kind=Kind.SERVICE)
    )
    return await control.access.authenticate(issued.secret.reveal())


@pytest.fixture
def shown(clock: TestClock) -> ShownCertificate:
    return ShownCertificate(frozenset({SCORING, "sha256:" + "a" * 64}), clock().timestamp() + 3600, b"d")


async def made(control: ControlPlane, admin: Actor, *names: str, stands_for: bool = True, **more: object) -> IssuedKey:
    certificate = KeyCertificate(names, stands_for)
    options = {"service": "usr_robot", "expires_in_days": None, **more}
    return await control.users.issue_key(admin, "robot", PREDICT, certificate=certificate, **options)  # type: ignore[arg-type]


async def stands_for(control: ControlPlane, shown: ShownCertificate) -> str | None:
    try:
        return (await control.access.by_certificate(shown)).id
    except Unauthenticated:
        return None


async def test_a_bound_key_s_secret_opens_nothing_without_a_certificate(
    control: ControlPlane, admin: Actor, shown: ShownCertificate, clock: TestClock
):
    issued = await made(control, admin, SCORING, stands_for=False)
    secret = issued.secret.reveal()
    assert (await control.access.authenticate(secret, shown=shown)).id == issued.key.id
    for other in (None, msgspec.structs.replace(shown, names=frozenset({OTHER}))):
        with pytest.raises(WrongCertificate):
            await control.access.authenticate(secret, shown=other)
    assert await stands_for(control, shown) is None, "it is bound, and no more"
    clock.advance(hours=1)
    with pytest.raises(CertificateExpired):
        await control.access.authenticate(secret, shown=shown)


async def test_a_certificate_stands_for_a_key_as_long_as_both_are_good(
    control: ControlPlane, admin: Actor, shown: ShownCertificate, clock: TestClock, rings: Rings
):
    key = (await made(control, admin, SCORING)).key
    actor = await control.access.by_certificate(shown, "req_1")
    assert (actor.id, actor.user, actor.request_id, actor.bounded) == (key.id, "usr_robot", "req_1", True)
    assert (await control.users.key(key.id)).last_used_at == clock()
    await control.users.set_active(admin, "usr_robot", active=False)
    assert await stands_for(control, shown) is None
    await control.users.set_active(admin, "usr_robot", active=True)
    assert await stands_for(control, shown) == key.id
    clock.advance(minutes=59)
    assert await stands_for(control, shown) == key.id
    clock.advance(minutes=1)
    with pytest.raises(CertificateExpired):
        await control.access.by_certificate(shown)
    later = msgspec.structs.replace(shown, expires=shown.expires + 1e6)
    assert await stands_for(control, later) == key.id
    rung = rings.courier
    await control.users.revoke_key(admin, key.id)
    assert rings.courier > rung
    assert await stands_for(control, later) is None


async def test_a_key_that_is_bound_to_networks_as_well_needs_both(control: ControlPlane, admin: Actor, shown: ShownCertificate):
    key = (await made(control, admin, SCORING, networks=["10.0.0.0/8"])).key
    assert (await control.access.by_certificate(shown, address="10.0.0.1")).id == key.id
    with pytest.raises(WrongNetwork):
        await control.access.by_certificate(shown, address="192.0.2.1")


async def test_a_name_stands_for_one_key_until_that_is_gone(
    control: ControlPlane, admin: Actor, shown: ShownCertificate, clock: TestClock
):
    first = (await made(control, admin, OTHER, SCORING, expires_in_days=1)).key
    with pytest.raises(CertificateInUse):
        await made(control, admin, SCORING, "dns:more")
    assert await stands_for(control, msgspec.structs.replace(shown, names=frozenset({"dns:more"}))) is None
    assert len(await control.users.keys(admin, limit=9)) == 2, "nothing of it is left"
    await made(control, admin, SCORING, stands_for=False)  # the control: being bound to it takes nothing away
    assert await stands_for(control, shown) == first.id
    clock.advance(days=1)
    shown = msgspec.structs.replace(shown, expires=clock().timestamp() + 10)
    second = (await made(control, admin, SCORING)).key
    assert await stands_for(control, shown) == second.id
    await control.users.revoke_key(admin, second.id)
    third = (await made(control, admin, SCORING)).key
    assert await stands_for(control, shown) == third.id


async def test_of_several_who_claim_a_name_at_once_one_has_it(control: ControlPlane, admin: Actor):
    tries = [made(control, admin, *names) for names in ((OTHER, SCORING), (SCORING,), (SCORING, "dns:a"), (OTHER, SCORING))]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(one) for one in results if isinstance(one, Exception)] == [CertificateInUse] * 3


async def test_a_certificate_of_two_keys_is_unclear_and_their_secrets_are_not(
    control: ControlPlane, admin: Actor, shown: ShownCertificate
):
    by_name = await made(control, admin, SCORING)
    by_fingerprint = await made(control, admin, "sha256:" + "a" * 64)
    with pytest.raises(CertificateUnclear):
        await control.access.by_certificate(shown)
    for one in (by_name, by_fingerprint):
        assert (await control.access.authenticate(one.secret.reveal(), shown=shown)).id == one.key.id
    await control.users.revoke_key(admin, by_name.key.id)
    assert await stands_for(control, shown) == by_fingerprint.key.id


async def test_a_key_is_bound_anew_and_what_is_taken_from_it_opens_nothing(
    control: ControlPlane, admin: Actor, shown: ShownCertificate, db: Database, rings: Rings
):
    issued = await made(control, admin, SCORING)
    rung = rings.courier
    bound = await control.users.bind_key(admin, issued.key.id, KeyCertificate((OTHER,), stands_for=True))
    assert rings.courier > rung
    assert (bound.certificate, bound.digest) == (KeyCertificate((OTHER,), stands_for=True), issued.key.digest)
    other = msgspec.structs.replace(shown, names=frozenset({OTHER}))
    assert (await stands_for(control, shown), await stands_for(control, other)) == (None, issued.key.id)
    with pytest.raises(WrongCertificate):
        await control.access.authenticate(issued.secret.reveal(), shown=shown)
    await control.users.bind_key(admin, issued.key.id, KeyCertificate((OTHER,)))
    assert await stands_for(control, other) is None
    await made(control, admin, OTHER)  # it is free
    async with db.read() as tx:
        served = {one.id: one.certificate for one in await control.access.served_keys(tx)}
    assert served[issued.key.id] == KeyCertificate((OTHER,))
    await control.users.revoke_key(admin, issued.key.id)
    with pytest.raises(KeyNotFound):
        await control.users.bind_key(admin, issued.key.id, KeyCertificate((OTHER,)))


async def test_the_trail_says_what_a_key_goes_with(control: ControlPlane, admin: Actor):
    key = (await made(control, admin, OTHER, SCORING)).key
    for _ in range(2):  # the second time nothing is changed
        await control.users.bind_key(admin, key.id, KeyCertificate((SCORING,)))
    bind, create = await control.audit.entries(limit=10, target=key.id)
    assert (bind.action, bind.before, bind.after) == ("key.bind", f"{OTHER} {SCORING} (stands for it)", SCORING)
    assert create.details["certificate"] == f"{OTHER} {SCORING} (stands for it)"


async def test_administrators_alone_say_what_a_certificate_stands_for_and_nobody_binds_another_person_s(
    control: ControlPlane, admin: Actor, shown: ShownCertificate, clock: TestClock
):
    """Whoever claims another tenant's name would have its requests counted as theirs, or refused as unclear."""
    users = control.users
    await users.add(admin, User("usr_bob", "bob", clock(), email="bob@example.org"))
    bob = Actor("ses_bob", "bob", "usr_bob", Standing("usr_bob"))
    theirs = (await made(control, admin, SCORING)).key
    for name in (SCORING, "sha256:" + "a" * 64):
        with pytest.raises(Forbidden):
            await users.issue_key(bob, "k", PREDICT, None, certificate=KeyCertificate((name,), stands_for=True))
    mine = await users.issue_key(bob, "k", PREDICT, None, certificate=KeyCertificate((SCORING,)))  # the control
    with pytest.raises(Forbidden):
        await users.bind_key(bob, mine.key.id, KeyCertificate((SCORING,), stands_for=True))
    assert await stands_for(control, shown) == theirs.id
    for unseen in (theirs.id, "key_none"):
        with pytest.raises(KeyNotFound):
            await users.bind_key(bob, unseen, KeyCertificate((OTHER,)))
    with pytest.raises(Invalid, match="Keys are bound by whoever has them"):
        await users.bind_key(admin, mine.key.id, KeyCertificate((OTHER,), stands_for=True))
    assert (await users.bind_key(bob, mine.key.id, KeyCertificate((OTHER,)))).certificate == KeyCertificate((OTHER,))


async def test_a_bound_key_passes_its_bounds_by_no_other(control: ControlPlane, admin: Actor, shown: ShownCertificate):
    issued = await control.users.issue_key(
        admin, "k", frozenset({Scope.ADMIN}), None, certificate=KeyCertificate((SCORING,), stands_for=True)
    )
    for bounded in (
        await control.access.by_certificate(shown),
        await control.access.authenticate(issued.secret.reveal(), shown=shown),
    ):
        assert bounded.may(Scope.ADMIN), "the control"
        for refused in (
            control.users.issue_key(bounded, "more", PREDICT, None),
            control.users.rotate_key(bounded, issued.key.id, 7),
            control.users.bind_key(bounded, issued.key.id, KeyCertificate((OTHER,))),
        ):
            with pytest.raises(Forbidden):
                await refused


async def test_the_last_way_in_is_not_bound_to_a_certificate(control: ControlPlane, admin: Actor):
    with pytest.raises(LastAdmin):
        await control.users.bind_key(admin, admin.id, KeyCertificate((SCORING,)))
    another = await control.users.issue_key(admin, "another", frozenset({Scope.ADMIN}), None)
    await control.users.bind_key(admin, admin.id, KeyCertificate((SCORING,)))
    with pytest.raises(LastAdmin):
        await control.users.revoke_key(admin, another.key.id)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("dns:Scoring.Example.ORG", "dns:scoring.example.org"),
        (" uri:spiffe://Example.org/A ", "uri:spiffe://Example.org/A"),
        ("uri:urn:x:y", "uri:urn:x:y"),
        ("sha256:" + "AB:" * 31 + "CD", "sha256:" + "ab" * 31 + "cd"),
    ],
)
def test_names_are_kept_as_they_are_compared(given: str, kept: str) -> None:
    assert certificate_of([given, given], stands_for=False) == KeyCertificate((kept,))


@pytest.mark.parametrize(
    "given",
    [
        "",
        "scoring",
        "cn:scoring",
        "dns:",
        "dns:*.example.org",
        "dns:a..b",
        "dns:a b",
        "dns:é.org",
        "uri:",
        "uri:nothing",
        "uri:x:a b",
        "uri:x:\n",
        "uri:x:" + "y" * 600,
        "sha256:ab",
        "sha256:" + "g" * 64,
        "DNS:a",
    ],
)
def test_what_no_certificate_is_called_is_refused(given: str) -> None:
    with pytest.raises(Invalid):
        certificate_of([SCORING, given], stands_for=False)


@pytest.mark.parametrize(("count", "good"), [(0, False), (20, True), (21, False)])
def test_a_key_goes_with_some_names_and_not_with_hundreds(count: int, good: bool) -> None:
    names = [f"dns:h{at}" for at in range(count)]
    if good:
        assert len(certificate_of(names, stands_for=True).names) == count
    else:
        with pytest.raises(Invalid):
            certificate_of(names, stands_for=True)
