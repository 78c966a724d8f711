"""Passwords: which are refused, how they are kept, and that a flood of them is turned away."""

import asyncio
import threading
from pathlib import Path

import bcrypt
import pytest
from pwdlib.hashers.argon2 import Argon2Hasher
from pwdlib.hashers.bcrypt import BcryptHasher

from fixtures.passwords import CountingHasher, cheap
from modelkeep.contracts.errors import Invalid
from modelkeep.infra.passwords import Passwords, PasswordsBusy, UnknownHash, WeakPassword, check_hash, read_known

GOOD = "correct horse battery"


async def test_a_password_is_kept_as_argon2id_and_known_again():
    passwords = cheap()
    kept = await passwords.hashed(GOOD)
    assert kept.startswith("$argon2id$v=19$")
    assert await passwords.checked(GOOD, kept) == (True, None)
    assert await passwords.checked(GOOD + " ", kept) == (False, None)
    assert await passwords.hashed(GOOD) != kept


async def test_the_strength_without_a_hasher_of_ones_own_is_that_of_the_recommendation():
    kept = await Passwords().hashed(GOOD)
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert check_hash(kept) == kept


async def test_the_same_characters_written_in_another_way_are_the_same_password():
    passwords = cheap()
    kept = await passwords.hashed("caf\u00e9 au lait sans sucre")
    assert (await passwords.checked("cafe\u0301 au lait sans sucre", kept)).right


@pytest.mark.parametrize(
    "weak",
    [
        "", "elevenchars", "x" * 1025, "aaaaaaaaaaaaaa", "abcabcabcabcabc", "123456789012345", "abcdefghijklm",
        "mlkjihgfedcba", "qwertyuiopas", "1qaz2wsx3edc4rfv", "Password1234!", "P@ssw0rd2026!", "AdminAdmin123",
        "welcome-2026-!", "changeme!1234",
    ],
)  # fmt: skip
async def test_short_and_well_known_passwords_are_refused_without_being_computed(weak: str):
    argon2 = CountingHasher()
    with pytest.raises(WeakPassword) as refused:
        await cheap(argon2=argon2).hashed(weak)
    assert argon2.computed == 0
    assert not weak or weak not in str(refused.value)


@pytest.mark.parametrize("good", [GOOD, "admin of the lighthouse", "zwölf Zeichen", "x9$Lw2!pQv7r", "password for a walrus"])
async def test_others_are_taken(good: str):
    await cheap().hashed(good)


async def test_the_owners_name_is_no_password():
    with pytest.raises(WeakPassword):
        await cheap().hashed("Grace.Hopper-1906", "gracehopper", "")


async def test_a_list_of_known_passwords_comes_from_a_file(tmp_path: Path):
    listed = tmp_path / "known"
    listed.write_text("Tr0ub4dor&3 again\n\nanother one of them\n")
    passwords = cheap(known=read_known(listed))
    with pytest.raises(WeakPassword):
        await passwords.hashed("tr0ub4dor&3 AGAIN")
    await passwords.hashed("tr0ub4dor&3 against")
    with pytest.raises(Invalid):
        read_known(tmp_path / "none")


async def test_a_bcrypt_hash_from_elsewhere_is_checked_and_replaced():
    kept = bcrypt.hashpw(GOOD.encode(), bcrypt.gensalt(4)).decode()
    passwords = cheap()
    right, better = await passwords.checked(GOOD, kept)
    assert right
    assert better is not None
    assert await passwords.checked(GOOD, better) == (True, None)
    assert not (await passwords.checked("correct horse batteru", kept)).right


async def test_a_password_is_not_cut_at_72_bytes():
    start = "the quick brown fox jumps over the lazy dog and then it runs far away.. "
    assert len(start) == 72
    passwords = cheap()
    kept = await passwords.hashed(start + "home")
    assert not (await passwords.checked(start + "away", kept)).right
    cut = bcrypt.hashpw(start.encode(), bcrypt.gensalt(4)).decode()  # as programs that cut have made it of the longer one
    assert (await passwords.checked(start, cut)).right
    assert not (await passwords.checked(start + "home", cut)).right


@pytest.mark.parametrize(
    "wrong",
    [
        "", "plain", "$2b$11$" + "a" * 53, "$2b$17$" + "a" * 53, "$argon2i$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$" + "a" * 43,
        "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$" + "a" * 43,
        "$argon2id$v=19$m=9999999,t=3,p=4$c2FsdHNhbHRzYWx0$" + "a" * 43,
        "$1$salt$hash", "$2b$12$" + "a" * 53 + "\n",
    ],
)  # fmt: skip
def test_hashes_that_are_weak_unknown_or_ruinous_are_refused(wrong: str):
    with pytest.raises(UnknownHash):
        check_hash(wrong)
    assert check_hash("$2b$12$" + "a" * 53)


async def test_as_much_is_computed_without_a_hash_as_with_one():
    argon2 = CountingHasher()
    passwords = cheap(argon2=argon2)
    kept = await passwords.hashed(GOOD)
    await passwords.checked(GOOD, None)  # makes the decoy, once
    for what in (kept, None, "no hash at all", "$2b$12$" + "a" * 53):
        before = argon2.computed
        assert not (await passwords.checked("x" * 80, what)).right
        assert argon2.computed == before + 1


async def test_a_flood_is_turned_away_and_the_loop_goes_on():
    go = threading.Event()

    class Slow(CountingHasher):
        def verify(self, password: str, hash: str) -> bool:  # noqa: A002
            go.wait(20)
            return super().verify(password, hash)

    slow = Slow()
    passwords = cheap(argon2=slow, threads=2, waiting=3)
    kept = slow.hash(GOOD)
    tasks = [asyncio.ensure_future(passwords.checked(GOOD, kept)) for _ in range(40)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    refused = [task for task in tasks if task.done()]
    assert len(refused) == 35
    assert all(isinstance(task.exception(), PasswordsBusy) for task in refused)
    tasks[0].cancel()  # whoever leaves does not make room while the thread still computes
    with pytest.raises(PasswordsBusy):
        await passwords.checked(GOOD, kept)
    go.set()
    done = [task for task in tasks[1:] if task not in refused]
    assert [one.right for one in await asyncio.gather(*done)] == [True] * 4
    assert (await passwords.checked(GOOD, kept)).right


def test_the_hashers_are_those_of_the_library():
    passwords = Passwords()
    assert isinstance(passwords._argon2, Argon2Hasher)
    assert isinstance(passwords._bcrypt, BcryptHasher)


async def test_the_first_name_that_there_is_not_costs_what_the_first_that_there_is_does():
    """A decoy is made once a process: at its first check, whoever that is of."""
    kept = await cheap().hashed(GOOD)
    computed = []
    for hash_ in (kept, None):
        argon2 = CountingHasher()
        await cheap(argon2=argon2).checked("another " + GOOD, hash_)
        computed.append(argon2.computed)
    assert computed[0] == computed[1] > 0
