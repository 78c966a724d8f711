"""Settings of identity providers: lists of tables, in the file and in the environment."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelkeep.api.settings import AuthSettings
from modelkeep.app import people, settings
from modelkeep.contracts.auth import OidcSettings
from modelkeep.contracts.errors import Invalid
from modelkeep.control.identities.rules import check

OIDC = {"name": "corp", "issuer": "https://sso.test", "client_id": "us", "redirect_uri": "https://here.test/callback"}
TOML = """
[[auth.oidc]]
name = "corp"
issuer = "https://sso.test"
client_id = "us"
redirect_uri = "https://here.test/callback"
domains = ["corp.test"]
group_map = { "Data Science" = "ml" }

[[auth.ldap]]
name = "staff"
servers = ["ldaps://a.test", "ldap://b.test"]
base = "dc=test"
"""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(text: str) -> AuthSettings:
    Path("modelkeep.toml").write_text(text)
    return settings.load().auth


def test_tables_in_the_file_are_providers_and_reach_the_processes():
    found = loaded(TOML)
    (corp,), (staff,) = found.oidc, found.ldap
    assert (corp.name, corp.domains, corp.group_map, corp.people) == ("corp", ("corp.test",), {"Data Science": "ml"}, "known")
    assert (staff.servers, staff.trust_emails) == (("ldaps://a.test", "ldap://b.test"), True)
    assert msgspec.json.decode(msgspec.json.encode(found), type=AuthSettings) == found


def test_the_environment_has_them_as_json(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MODELKEEP_AUTH__OIDC", json.dumps([OIDC]))
    assert settings.load().auth.oidc == (OidcSettings(**OIDC),)
    shown = {one.name: one.value for one in settings.explain()}
    assert (shown["auth.oidc"], shown["auth.ldap"]) == ("corp", "")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "is not"),
        ('{"name": "corp"}', "is not"),
        ("[1]", "is wrong at its number 1"),
        (json.dumps([OIDC, {**OIDC, "isuer": "x"}]), "is wrong at its number 2, isuer"),
        (json.dumps([{name: one for name, one in OIDC.items() if name != "issuer"}]), "is wrong at its number 1, issuer"),
        (json.dumps([{**OIDC, "algorithms": ["none"]}]), "is wrong at its number 1, algorithms.0"),
        (json.dumps([{**OIDC, "algorithms": ["HS256"]}]), "is wrong at its number 1, algorithms.0"),
        (json.dumps([{**OIDC, "algorithms": []}]), "is wrong at its number 1, algorithms"),
        (json.dumps([{**OIDC, "skew_s": 301}]), "is wrong at its number 1, skew_s"),
    ],
)
def test_what_is_wrong_is_named_and_not_repeated(monkeypatch: pytest.MonkeyPatch, value: str, said: str):
    monkeypatch.setenv("MODELKEEP_AUTH__OIDC", value)
    with pytest.raises(settings.InvalidSettings) as refused:
        settings.load()
    assert f"from the environment (MODELKEEP_AUTH__OIDC) {said}" in refused.value.message


async def test_a_provider_is_found_by_its_kind_and_named_where_it_cannot_be_used():
    made = people._provider("oidc", OidcSettings(**OIDC))
    assert made.settings.name == "corp"
    await made.close()
    with pytest.raises(Invalid, match=r"The identity provider corp cannot be used: issuer must be an https address"):
        people._provider("oidc", OidcSettings(**{**OIDC, "issuer": "http://sso.test"}))


@pytest.mark.parametrize(
    "changes",
    [
        [{"name": "Corp"}],
        [{"name": "a/b"}],
        [{"name": "a_b"}],
        [{"group_map": {"ml": "Data Science"}}],
        [{"default_role": "emperor"}],
        [{}, {"redirect_uri": "https://here.test/other"}],
        [{}, {"name": "other"}],
        [{"service_audience": "a"}, {"name": "other", "redirect_uri": "https://here.test/other", "service_audience": "b"}],
    ],
    ids=str,
)
def test_providers_that_do_not_go_together_are_refused(changes: list[dict[str, Any]]):
    with pytest.raises(Invalid):
        check([OidcSettings(**{**OIDC, **each}) for each in changes])
    check([OidcSettings(**OIDC)])
