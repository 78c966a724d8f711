"""Secrets in settings are hidden in every form, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.app.secrecy import shown, without_secrets


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("postgresql://user:s3cret@host:5432/name", "postgresql://user:***@host:5432/name"),
        ("postgresql://user@host/name", "postgresql://user@host/name"),
        ("postgresql://:s3cret@host/name", "postgresql://:***@host/name"),
        ("postgresql://user:s3@cr/et@host/name", "postgresql://user:***@host/name"),
        (
            "postgresql+psycopg://user:s3cret@a,b/name?target_session_attrs=any",
            "postgresql+psycopg://user:***@a,b/name?target_session_attrs=any",
        ),
        ("postgresql://host/name?user=u&password=s3cret", "postgresql://host/name?user=u&password=***"),
        ("postgresql://host/name?sslpassword=s3cret&sslmode=require", "postgresql://host/name?sslpassword=***&sslmode=require"),
        ("postgresql://host/name?PassWord=s3cret", "postgresql://host/name?PassWord=***"),
        ("postgresql://host/name?p%61ssword=s3cret", "postgresql://host/name?p%61ssword=***"),
        ("postgresql://host/name?options=password%3Ds3cret", "postgresql://host/name?options=***"),
        ("postgresql://u:s3cret@host/name?password=s3cret&a=b", "postgresql://u:***@host/name?password=***&a=b"),
        ("redis://:s3cret@host:6379/0", "redis://:***@host:6379/0"),
        ("https://host/path?api_key=s3cret&api-token=s3cret", "https://host/path?api_key=***&api-token=***"),
        ("s3://bucket/path?region=eu&secret_access_key=s3cret", "s3://bucket/path?region=eu&secret_access_key=***"),
        ("sqlite:///kept.db", "sqlite:///kept.db"),
        ("sqlite:///kept@home.db", "sqlite:///kept@home.db"),
        ("host=a password=s3cret", "***"),
        ("postgresql://user:s3?cret@host/name", "postgresql://***"),
        ("postgresql://host/name?password=s3&cret", "postgresql://host/name?password=***&***"),
        ("postgresql://host/name?password=s3@cret", "postgresql://***"),
        ("models", "models"),
    ],
)
def test_only_the_secret_parts_of_an_address_are_hidden(address: str, seen: str) -> None:
    assert without_secrets(address) == seen


SECRET = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1).map(lambda text: f"S3CRET{text}S3CRET")


@given(SECRET)
def test_no_password_before_the_host_is_shown_whatever_is_in_it(secret: str) -> None:
    assert "S3CRET" not in without_secrets(f"postgresql://user:{secret}@host/name")


@given(SECRET, st.sampled_from(["password", "sslpassword", "PASSWORD", "pwd", "secret", "auth_token", "sas_token", "api_key"]))
def test_no_secret_parameter_is_shown_whatever_is_in_it(secret: str, name: str) -> None:
    for parameters in (f"{name}={secret}", f"a=b&{name}={secret}"):
        seen = without_secrets(f"postgresql://u:p@host/name?{parameters}")
        assert secret not in seen
        assert not seen.endswith("?a=b")


def test_a_setting_whose_name_is_a_secret_s_is_hidden_and_numbers_never_are() -> None:
    assert shown("storage.secret_key", "s3cret") == "***"
    assert shown("storage.secret_key", "") == ""
    assert shown("auth.token_minutes", 30) == "30"
    assert shown("server.host", "::1") == "::1"
