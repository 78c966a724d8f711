"""Ids: the ULID layout, their order, and no two alike, also after a fork."""

import os

from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.ids import new_id, new_ulid, ulid

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**80 - 1))
def test_an_id_is_its_time_and_randomness_in_base_32(now_ms: int, bits: int) -> None:
    number = 0
    for letter in ulid(now_ms, bits):
        number = number * 32 + ALPHABET.index(letter)
    assert number == now_ms << 80 | bits


def test_the_example_of_the_specification_holds() -> None:
    assert ulid(1469918176385, 0).startswith("01ARYZ6S41")


@given(st.tuples(st.integers(0, 2**48 - 1), st.integers(0, 2**48 - 1)), st.integers(0, 2**80 - 1))
def test_ids_sort_by_their_time(times: tuple[int, int], bits: int) -> None:
    early, late = sorted(times)
    assert ulid(early, bits) <= ulid(late, 0) or early == late


def test_no_two_are_alike_and_each_sorts_behind_the_one_before() -> None:
    made = [new_id("prd") for _ in range(5000)]
    assert len(set(made)) == len(made)
    assert made == sorted(made)
    assert all(len(one) == 30 and one.startswith("prd_") for one in made)


def test_a_forked_process_makes_ids_of_its_own() -> None:
    new_ulid()  # from here on there is randomness in store
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "".join(new_ulid()[10:] for _ in range(50)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 50 * 16).decode()
    os.close(reading)
    os.close(writing)
    ours = {new_ulid()[10:] for _ in range(50)}
    assert ours.isdisjoint(theirs[at : at + 16] for at in range(0, len(theirs), 16))
