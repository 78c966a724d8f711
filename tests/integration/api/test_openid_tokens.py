"""Tokens that an OpenID provider would never make, each beside one that it would; and what fetching from it may do."""

import base64
import hmac
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwk, jws, jwt

from fixtures.authority import server_side
from fixtures.lying_provider import Lying, lying_provider
from modelkeep.contracts.auth import Challenge, IdentityRefused, OidcSettings, ProviderUnavailable
from modelkeep.contracts.errors import Invalid, Unauthenticated
from modelkeep.plugins.auth.oidc import OpenIdProvider

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
CHALLENGE = Challenge("state", "nonce", "v" * 43)
KEY = jwk.RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
OTHER = jwk.RSAKey.generate_key(2048, {"kid": "two"})
CURVED = jwk.ECKey.generate_key("P-256", {"kid": "curved"})
Claims = dict[str, Any]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    return server_side(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def lying(tls: tuple[Any, Path]) -> Iterator[Lying]:
    with lying_provider(tls[0]) as one:
        one.answers = {
            "/.well-known/openid-configuration": (200, metadata(one)),
            "/jwks": (200, {"keys": [one_key.as_dict(private=False) for one_key in (KEY, CURVED)]}),
        }
        yield one


def metadata(one: Lying) -> dict[str, Any]:
    places = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks", "userinfo_endpoint": "me"}
    return {"issuer": one.issuer, **{name: f"{one.issuer}/{path}" for name, path in places.items()}}


@pytest.fixture
async def settings(lying: Lying, tls: tuple[Any, Path]) -> OidcSettings:
    return OidcSettings(
        name="corp",
        issuer=lying.issuer,
        client_id="us",
        redirect_uri="https://here.test/callback",
        ca_file=str(tls[1]),
        algorithms=("RS256", "ES256"),
        service_audience="api",
        services={"robot": "pipeline"},
        timeout_s=5,
    )


@pytest.fixture
async def provider(settings: OidcSettings) -> AsyncIterator[OpenIdProvider]:
    one = OpenIdProvider(settings, lambda: NOW)
    yield one
    await one.close()


def claims(lying: Lying, **changes: Any) -> Claims:
    at = int(NOW.timestamp())
    said = {"iss": lying.issuer, "aud": "us", "sub": "ada", "nonce": "nonce", "iat": at, "exp": at + 300, "email": "a@b.test"}
    return {name: value for name, value in (said | changes).items() if value is not ...}


def signed(said: Claims, key: Any = KEY, **header: Any) -> str:
    header = {"alg": "RS256", "kid": key.kid, **header}
    return jwt.encode({name: one for name, one in header.items() if one is not ...}, said, key, algorithms=[header["alg"]])


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def hmac_with_public_key(said: Claims) -> str:
    text = f"{part({'alg': 'HS256', 'kid': 'one'})}.{part(said)}"
    code = hmac.digest(KEY.as_pem(private=False), text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(code).rstrip(b'=').decode()}"


def changed(token: str, said: Claims) -> str:
    head, _claims, signature = token.split(".")
    return f"{head}.{part(said)}.{signature}"


async def identity(provider: OpenIdProvider, lying: Lying, token: object) -> Any:
    lying.answers["/token"] = (200, {"id_token": token, "access_token": "x", "token_type": "Bearer"})
    return await provider.identity("code", None, CHALLENGE)


FORGED: dict[str, Callable[[Claims], object]] = {
    "claims deeper than anybody reads": lambda _said: jws.serialize_compact({"alg": "RS256", "kid": "one"}, b"[" * 5_000, KEY),
    "no signature": lambda said: f"{part({'alg': 'none'})}.{part(said)}.",
    "no signature, other case": lambda said: f"{part({'alg': 'NoNe', 'kid': 'one'})}.{part(said)}.",
    "signature removed": lambda said: signed(said).rpartition(".")[0] + ".",
    "HMAC with the public key": hmac_with_public_key,
    "another key under the same id": lambda said: signed(said, OTHER, kid="one"),
    "a key that is not published": lambda said: signed(said, OTHER),
    "its own key in the header": lambda said: signed(said, OTHER, kid=..., jwk=OTHER.as_dict(private=False)),
    "an algorithm that is not allowed": lambda said: signed(said, alg="PS256"),
    "a key of another kind": lambda said: signed(said, CURVED, alg="ES256", kid="one"),
    "another audience": lambda said: signed({**said, "aud": "them"}),
    "our name inside another": lambda said: signed({**said, "aud": "us-too"}),
    "several audiences and no party": lambda said: signed({**said, "aud": ["us", "them"]}),
    "another party": lambda said: signed({**said, "azp": "them"}),
    "another issuer": lambda said: signed({**said, "iss": "https://evil.test"}),
    "an issuer with a slash more": lambda said: signed({**said, "iss": said["iss"] + "/"}),
    "another nonce": lambda said: signed({**said, "nonce": "other"}),
    "no nonce": lambda said: signed({name: one for name, one in said.items() if name != "nonce"}),
    "expired": lambda said: signed({**said, "exp": said["iat"] - 60}),
    "no expiry": lambda said: signed({name: one for name, one in said.items() if name != "exp"}),
    "an expiry that is true": lambda said: signed({**said, "exp": True}),
    "from the future": lambda said: signed({**said, "iat": said["iat"] + 61}),
    "not yet": lambda said: signed({**said, "nbf": said["iat"] + 61}),
    "nobody": lambda said: signed({**said, "sub": ""}),
    "a list of people": lambda said: signed({**said, "sub": ["ada"]}),
    "no token": lambda _said: None,
    "no text": lambda _said: "…",
    "two parts": lambda said: ".".join(signed(said).split(".")[:2]),
    "too long": lambda said: signed({**said, "more": "x" * 70_000}),
    "changed": lambda said: changed(signed(said), {**said, "sub": "eve"}),
}


@pytest.mark.parametrize("attack", FORGED)
async def test_a_token_that_the_provider_did_not_make_for_us_lets_nobody_in(
    provider: OpenIdProvider, lying: Lying, attack: str
):
    with pytest.raises(IdentityRefused):
        await identity(provider, lying, FORGED[attack](claims(lying)))
    assert (await identity(provider, lying, signed(claims(lying)))).subject == "ada"


@pytest.mark.parametrize(
    "changes",
    [{"aud": ["us"]}, {"aud": ["us", "them"], "azp": "us"}, {"azp": "us"}, {"iat": ...}, {"exp": -59}, {"iat": 59, "nbf": 59}],
)
async def test_what_the_standard_allows_is_taken(provider: OpenIdProvider, lying: Lying, changes: Claims):
    if changes == {"iat": ...}:
        with pytest.raises(IdentityRefused):  # the standard asks for it
            await identity(provider, lying, signed(claims(lying, **changes)))
        return
    at = int(NOW.timestamp())
    changes = {name: at + one if isinstance(one, int) else one for name, one in changes.items()}
    assert (await identity(provider, lying, signed(claims(lying, **changes)))).subject == "ada"
    assert (await identity(provider, lying, signed(claims(lying), CURVED, alg="ES256"))).subject == "ada"


async def test_a_new_key_is_learnt_and_invented_ones_cost_the_provider_nothing(provider: OpenIdProvider, lying: Lying):
    now = [0.0]
    provider._knowledge._monotonic = lambda: now[0]
    assert (await identity(provider, lying, signed(claims(lying)))).subject == "ada"
    new = jwk.RSAKey.generate_key(2048, {"kid": "new"})
    for _attempt in range(5):
        with pytest.raises(IdentityRefused):
            await identity(provider, lying, signed(claims(lying), new))
    assert lying.asked["/jwks"] == 1
    now[0] = 60
    lying.answers["/jwks"] = (200, {"keys": [new.as_dict(private=False)]})
    assert (await identity(provider, lying, signed(claims(lying), new))).subject == "ada"
    with pytest.raises(IdentityRefused):
        await identity(provider, lying, signed(claims(lying)))  # the old one was withdrawn
    assert lying.asked["/jwks"] == 2


async def test_no_address_of_a_token_is_fetched(provider: OpenIdProvider, lying: Lying):
    for name in ("jku", "x5u"):
        token = f"{part({'alg': 'RS256', 'kid': 'none', name: lying.issuer + '/evil'})}.{part(claims(lying))}.AAAA"
        with pytest.raises(IdentityRefused):
            await identity(provider, lying, token)
    assert set(lying.asked) == {"/.well-known/openid-configuration", "/jwks", "/token"}


async def test_an_access_token_is_for_this_audience_and_no_id_token(provider: OpenIdProvider, lying: Lying):
    good = claims(lying, aud="api", sub="robot", nonce=...)
    assert await provider.service(signed(good, typ="at+jwt")) == "pipeline"
    wrong = [
        signed(claims(lying, aud="us", sub="robot"), typ="at+jwt"),
        signed(claims(lying, aud="api", sub="robot"), typ="at+jwt"),  # it has a nonce, as ID tokens have
        signed({**good, "sub": "ada"}, typ="at+jwt"),
        signed({**good, "iss": "https://evil.test"}, typ="at+jwt"),
        signed({**good, "exp": good["iat"] - 61}, typ="at+jwt"),
        signed(good, typ="logout+jwt"),
        signed(good, OTHER, typ="at+jwt"),
        f"{part({'alg': 'none', 'typ': 'at+jwt'})}.{part(good)}.",
    ]
    for token in wrong:
        with pytest.raises(Unauthenticated):
            await provider.service(token)


@pytest.mark.parametrize("answer", [(500, {}), (302, {}), (200, b"<html>"), (200, b"[]"), (200, b" " * 600_000), None], ids=str)
async def test_a_provider_that_does_not_answer_as_it_should_is_away(provider: OpenIdProvider, lying: Lying, answer: Any):
    if answer is None:
        del lying.answers["/.well-known/openid-configuration"]
    else:
        lying.answers["/.well-known/openid-configuration"] = answer
    with pytest.raises(ProviderUnavailable):
        await provider.address(CHALLENGE)
    assert "/elsewhere" not in lying.asked
    with pytest.raises(ProviderUnavailable):
        await provider.address(CHALLENGE)
    assert lying.asked["/.well-known/openid-configuration"] == 1, "who comes a moment later does not wait for it, too"


@pytest.mark.parametrize(
    "changes",
    [{"issuer": "https://evil.test"}, {"token_endpoint": "http://evil.test/token"}, {"jwks_uri": "file:///etc/passwd"}],
)
async def test_a_discovery_document_of_another_is_not_believed(provider: OpenIdProvider, lying: Lying, changes: Claims):
    lying.answers["/.well-known/openid-configuration"] = (200, metadata(lying) | changes)
    with pytest.raises(ProviderUnavailable):
        await provider.address(CHALLENGE)


async def test_another_authority_is_not_trusted(settings: OidcSettings, lying: Lying, tmp_path: Path):
    _context, authority = server_side(tmp_path)
    for file in (str(authority), ""):
        stranger = OpenIdProvider(replace(settings, ca_file=file), lambda: NOW)
        with pytest.raises(ProviderUnavailable):
            await stranger.address(CHALLENGE)
        await stranger.close()
    assert not lying.asked


async def test_with_everything_pinned_nothing_but_codes_goes_to_the_provider(
    settings: OidcSettings, lying: Lying, tmp_path: Path
):
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps({"keys": [KEY.as_dict(private=False)]}))
    places = {"authorization_endpoint": f"{lying.issuer}/authorize", "token_endpoint": f"{lying.issuer}/token"}
    pinned = OpenIdProvider(replace(settings, jwks_file=str(keys), **places), lambda: NOW)
    assert (await pinned.address(CHALLENGE)).startswith(f"{lying.issuer}/authorize?response_type=code&")
    assert (await identity(pinned, lying, signed(claims(lying)))).subject == "ada"
    assert set(lying.asked) == {"/token"}
    await pinned.close()


async def test_userinfo_of_another_person_is_refused(settings: OidcSettings, lying: Lying):
    asking = OpenIdProvider(replace(settings, userinfo=True), lambda: NOW)
    lying.answers["/me"] = (200, {"sub": "eve", "email": "eve@b.test", "groups": ["admins"]})
    with pytest.raises(IdentityRefused):
        await identity(asking, lying, signed(claims(lying)))
    lying.answers["/me"] = (200, {"sub": "ada", "iss": "https://evil.test", "email": "other@b.test", "groups": ["ml"]})
    found = await identity(asking, lying, signed(claims(lying)))
    assert (found.email, found.groups) == ("a@b.test", {"ml"}), "what is signed comes before what is not"
    await asking.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "http://corp.test"},
        {"redirect_uri": "javascript:alert(1)"},
        {"redirect_uri": "https://user@here.test/callback"},
        {"scopes": ("email",)},
        {"service_audience": "us"},
        {"services": {}},
        {"client_secret_file": "/nonexistent"},
        {"ca_file": "/nonexistent"},
        {"authorization_endpoint": "https://corp.test/a"},
    ],
    ids=str,
)
async def test_settings_that_cannot_work_are_refused_at_the_start(settings: OidcSettings, changes: Claims):
    with pytest.raises(Invalid):
        OpenIdProvider(replace(settings, **changes), lambda: NOW)
