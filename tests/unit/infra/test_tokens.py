"""Access tokens: every way to forge one that is known, each beside a careless check that lets it in."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.errors import Unauthenticated
from modelkeep.contracts.snapshot import Signer
from modelkeep.infra.site_key import SiteKey
from modelkeep.infra.tokens import ACCESS_LIFE, SKEW, Claims, Issuer, SigningKey, Verifier, published

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ISSUER = Issuer(SiteKey(b"1" * 32))
KEY = ISSUER.new_key()
UNTIL = NOW + ACCESS_LIFE
TOKEN = ISSUER.sign(KEY, "usr_1", "ses_1", now=NOW, until=UNTIL)


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(text: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def verified(issuer: Issuer, token: str, keys: list[SigningKey], at: datetime) -> Claims:
    """What an installation with these keys reads in a token."""
    signers = [Signer(key.kid, key.public) for key in keys]
    return Verifier(signers, issuer.names).verified(token.encode(errors="replace"), at.timestamp())


HEAD, CLAIMS = (decoded(part) for part in TOKEN.split(".")[:2])


def forged(key: Ed25519PrivateKey | bytes | None, head: dict[str, Any], **claims: object) -> str:
    """A token with this head and these claims changed, signed with this key, HMAC's secret, or nothing."""
    text = f"{encoded(json.dumps(head, separators=(',', ':')).encode())}.{encoded(json.dumps(CLAIMS | claims).encode())}"
    if isinstance(key, bytes):
        return f"{text}.{encoded(hmac.digest(key, text.encode(), hashlib.sha256))}"
    return f"{text}.{'' if key is None else encoded(key.sign(text.encode()))}"


def own(**claims: object) -> str:
    """A token that the installation itself would have signed, with other claims."""
    return forged(ISSUER._private(KEY), HEAD, **claims)


def careless(token: str, *, key: bytes = KEY.public) -> dict[str, Any]:
    """Check a token as it says that it wants to be checked, and nothing of what it claims."""
    head, claims, signature = token.split(".")
    said = decoded(head)
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    if "jwk" in said:
        key = base64.urlsafe_b64decode(said["jwk"]["x"] + "=")
    if said["alg"] == "HS256":
        assert hmac.compare_digest(raw, hmac.digest(b"" if "/" in said["kid"] else key, f"{head}.{claims}".encode(), "sha256"))
    elif said["alg"] != "none":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        Ed25519PublicKey.from_public_bytes(key).verify(raw, f"{head}.{claims}".encode())
    return decoded(claims)


MINE = Ed25519PrivateKey.generate()
JWK = {"kty": "OKP", "crv": "Ed25519", "x": encoded(MINE.public_key().public_bytes_raw())}
OTHER = Issuer(SiteKey(b"2" * 32))
OTHERS_KEY = OTHER.new_key()
AT = int(NOW.timestamp())
ATTACKS = {
    "alg none": forged(None, HEAD | {"alg": "none"}, sub="usr_admin"),
    "HS256 with the public key": forged(KEY.public, HEAD | {"alg": "HS256"}, sub="usr_admin"),
    "kid is a path to an empty file": forged(b"", HEAD | {"alg": "HS256", "kid": "../../dev/null"}, sub="usr_admin"),
    "a key of the token's own": forged(MINE, HEAD | {"jwk": JWK}, sub="usr_admin"),
    "expired by a second": own(exp=AT - 1),
    "expires now": own(exp=AT),
    "not yet, by a second": own(nbf=AT + 1),
    "another audience": own(aud="someone else"),
    "another issuer": own(iss="https://evil.example"),
    "a head of the same meaning": forged(ISSUER._private(KEY), dict(reversed(HEAD.items()))),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_forged_token_is_refused_that_a_careless_check_lets_in(attack: str):
    assert careless(ATTACKS[attack])["sid"] == "ses_1"
    with pytest.raises(Unauthenticated):
        verified(ISSUER, ATTACKS[attack], [KEY], NOW)


@pytest.mark.parametrize(
    "wrong",
    [
        "", ".", "..", "...", TOKEN[:-1], TOKEN[:-2], TOKEN + "=", TOKEN + ".", "." + TOKEN, TOKEN.replace(".", ".."),
        TOKEN.rpartition(".")[0] + ".", "\u00e9" + TOKEN, TOKEN + " ", "a." * 5000, TOKEN[:-1] + "\ud800",
        forged(MINE, HEAD), forged(MINE, HEAD | {"kid": "x" * 43}), own(sub=None), own(exp="never"), own(exp=1e400),
        TOKEN.split(".")[0] + "." + encoded(b'{"sub":"usr_admin"}') + "." + TOKEN.split(".")[2],
    ],
)  # fmt: skip
def test_cut_extended_and_signed_anew_it_is_refused(wrong: str):
    with pytest.raises(Unauthenticated):
        verified(ISSUER, wrong, [KEY], NOW)


def test_the_token_as_it_was_made_is_good_for_half_an_hour():
    assert verified(ISSUER, TOKEN, [KEY], NOW).sub == "usr_1"
    assert verified(ISSUER, own(), [KEY], NOW).sid == "ses_1"  # the attacks above would pass but for what they change
    verified(ISSUER, TOKEN, [KEY], NOW + ACCESS_LIFE - timedelta(seconds=1))
    verified(ISSUER, TOKEN, [KEY], NOW - SKEW)
    for at in (NOW + ACCESS_LIFE, NOW - SKEW - timedelta(seconds=1)):
        with pytest.raises(Unauthenticated):
            verified(ISSUER, TOKEN, [KEY], at)


def test_another_installations_token_is_refused_even_where_its_key_is_known():
    token = OTHER.sign(OTHERS_KEY, "usr_1", "ses_1", now=NOW, until=UNTIL)
    verified(OTHER, token, [OTHERS_KEY], NOW)
    for keys in ([KEY], [KEY, OTHERS_KEY], []):
        with pytest.raises(Unauthenticated):
            verified(ISSUER, token, keys, NOW)


def test_a_key_signs_only_where_it_was_made():
    assert ISSUER.opens(KEY)
    assert not OTHER.opens(KEY)
    swapped = SigningKey(KEY.kid, KEY.public, OTHERS_KEY.sealed)
    for issuer, key in ((OTHER, KEY), (ISSUER, swapped), (OTHER, swapped)):
        with pytest.raises(InvalidTag):
            issuer.sign(key, "usr_1", "ses_1", now=NOW, until=UNTIL)


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda raw: raw.decode("latin-1")))
def test_nothing_but_a_token_passes(text: str):
    with pytest.raises(Unauthenticated):
        verified(ISSUER, text, [KEY], NOW)


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("AZaz09-_.=/+ \x00\u00e9"))
def test_no_sign_of_a_token_may_be_another(at: int, sign: str):
    changed = TOKEN[:at] + sign + TOKEN[at + 1 :]
    if changed != TOKEN:
        with pytest.raises(Unauthenticated):
            verified(ISSUER, changed, [KEY], NOW)


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
def test_a_library_of_somebody_else_checks_it_with_the_published_keys():
    from joserfc import jwk, jwt

    keys = jwk.KeySet.import_key_set(json.loads(json.dumps(published([OTHERS_KEY, KEY]))))
    token = jwt.decode(TOKEN, keys, algorithms=["EdDSA"])
    assert token.claims["sub"] == "usr_1"
    assert token.header == {"alg": "EdDSA", "kid": KEY.kid, "typ": "at+jwt"}
    assert keys.keys[1].thumbprint() == KEY.kid
    assert "d" not in published([KEY])["keys"][0]


def test_tokens_and_keys_from_before_another_site_key_stay_good_as_long_as_that_is_known():
    old, both = Issuer(SiteKey(b"1" * 32)), Issuer(SiteKey(b"3" * 32, b"1" * 32))
    alone = Issuer(SiteKey(b"3" * 32))
    key = old.new_key()
    token = old.sign(key, "usr_1", "ses_1", now=NOW, until=UNTIL)
    assert verified(both, token, [key], NOW).sub == "usr_1"
    assert verified(old, old.sign(key, "usr_1", "ses_1", now=NOW, until=UNTIL), [key], NOW).sid == "ses_1"
    carried = both.resealed(key)
    assert (carried.kid, carried.public) == (key.kid, key.public)
    assert both.resealed(carried) == carried
    assert (alone.opens(key), alone.opens(carried), old.opens(carried)) == (False, True, False)
    assert verified(alone, alone.sign(carried, "usr_1", "ses_1", now=NOW, until=UNTIL), [carried], NOW).sub == "usr_1"
    with pytest.raises(Unauthenticated):
        verified(alone, token, [carried], NOW)
    with pytest.raises(InvalidTag):
        alone.resealed(key)
