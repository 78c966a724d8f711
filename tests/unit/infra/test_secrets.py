"""API keys and tokens."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.infra import secrets

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("prefix", [secrets.KEY, secrets.SETUP])
def test_a_new_secret_has_its_form_and_a_right_checksum(prefix: str):
    text = secrets.new_secret(prefix).reveal()
    assert re.fullmatch(prefix + "[0-9A-Za-z]{46}", text)
    assert secrets.well_formed(text, prefix)


def test_secrets_are_never_the_same():
    assert len({secrets.new_secret(secrets.KEY).reveal() for _ in range(1000)}) == 1000


@given(place=st.integers(3, 48), letter=st.sampled_from(_ALPHABET))
def test_one_mistyped_letter_is_always_noticed(place: int, letter: str):
    text = secrets.new_secret(secrets.KEY).reveal()
    mistyped = text[:place] + letter + text[place + 1 :]
    assert secrets.well_formed(mistyped, secrets.KEY) is (mistyped == text)


@given(st.text(max_size=60))
def test_nothing_that_people_type_breaks_the_check(text: str):
    assert not secrets.well_formed(text, secrets.KEY)
    assert not secrets.well_formed(secrets.KEY + text, secrets.KEY)


def test_a_setup_token_is_no_key_and_a_key_is_no_setup_token():
    assert not secrets.well_formed(secrets.new_secret(secrets.SETUP).reveal(), secrets.KEY)
    assert not secrets.well_formed(secrets.new_secret(secrets.KEY).reveal(), secrets.SETUP)


def test_a_secret_does_not_print_itself():
    secret = secrets.new_secret(secrets.KEY)
    for shown in (repr(secret), str(secret), f"{secret}", f"{[secret]}"):
        assert secret.reveal() not in shown


def test_a_digest_is_the_sha_256_and_says_nothing_of_the_secret():
    secret = secrets.new_secret(secrets.KEY).reveal()
    assert len(secrets.digest(secret)) == 32
    assert secrets.digest(secret) != secrets.digest(secret + "x")
