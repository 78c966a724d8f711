"""Signing in with a role: the service that gives roles is played here, what it is asked and what its answer opens is real."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from fixtures.authority import server_side
from fixtures.faults import Exchange, FaultyProxy, faulty
from fixtures.object_store import KEY_ID, SECRET, ObjectStore
from fixtures.stores import content, stream
from modelkeep.contracts.errors import StorageUnavailable
from modelkeep.plugins.storage.s3 import S3BlobStore

ROLE = "arn:aws:iam::123456789012:role/models"


@pytest_asyncio.fixture
async def roles(object_store: ObjectStore, tmp_path: Path) -> AsyncIterator[tuple[FaultyProxy, list[dict[str, list[str]]]]]:
    """The service, which gives the key of the object store to whoever asks, and what it was asked."""
    asked: list[dict[str, list[str]]] = []

    def give(exchange: Exchange) -> None:
        query = parse_qs(urlsplit(exchange.target).query) | parse_qs(exchange.body.decode())
        asked.append(query)
        action = query["Action"][0]
        until = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
        exchange.refuse("200 OK", "")
        exchange.answer[:] = (
            f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>'
            f"<AccessKeyId>{KEY_ID}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken></SessionToken>"
            f"<Expiration>{until}</Expiration></Credentials></{action}Result></{action}Response>"
        ).encode()
        exchange.headers = {b"content-type": b"text/xml"}

    tls, _ca = server_side(tmp_path)
    async with faulty(object_store.address, tls) as service:
        service.before = give
        yield service, asked


async def test_a_role_is_taken_with_the_key_that_may_take_it(object_store: ObjectStore, tmp_path: Path, roles):
    service, asked = roles
    changes = {
        "sign_in": "role",
        "role_arn": ROLE,
        "sts_endpoint": service.url,
        "ca_file": str(tmp_path / "ca.pem"),
        "access_key_id": "may-only-take-roles",
    }
    store = S3BlobStore.create(tmp_path, object_store.settings(object_store.bucket(), **changes))
    blob = await store.put(stream(b"abc"), max_bytes=3)
    assert await content(store, blob.digest) == b"abc"
    assert {one["Action"][0] for one in asked} == {"AssumeRole"}
    assert asked[0]["RoleArn"] == [ROLE]
    assert asked[0]["RoleSessionName"] == ["modelkeep"]
    assert len(asked) == 1  # it is kept until it runs out


async def test_a_role_is_given_for_a_token_file(object_store: ObjectStore, tmp_path: Path, roles):
    service, asked = roles
    token = tmp_path / "token"
    token.write_text("who-we-are")
    changes = {
        "sign_in": "web-identity",
        "role_arn": ROLE,
        "sts_endpoint": service.url,
        "ca_file": str(tmp_path / "ca.pem"),
        "web_identity_token_file": str(token),
        "access_key_id": "",
        "secret_access_key": "",
    }
    store = S3BlobStore.create(tmp_path / "copies", object_store.settings(object_store.bucket(), **changes))
    blob = await store.put(stream(b"abc"), max_bytes=3)
    assert await content(store, blob.digest) == b"abc"
    assert asked[0]["Action"] == ["AssumeRoleWithWebIdentity"]
    assert (asked[0]["RoleArn"], asked[0]["WebIdentityToken"]) == ([ROLE], ["who-we-are"])


async def test_a_role_that_is_not_given_is_said(object_store: ObjectStore, tmp_path: Path, roles):
    service, _asked = roles
    service.before = lambda exchange: exchange.refuse("403 Forbidden", "AccessDenied")
    changes = {"sign_in": "role", "role_arn": ROLE, "sts_endpoint": service.url, "ca_file": str(tmp_path / "ca.pem")}
    store = S3BlobStore.create(tmp_path, object_store.settings(object_store.bucket(), **changes))
    with pytest.raises(StorageUnavailable) as refused:
        await store.size("0" * 64)
    assert SECRET not in refused.value.message


async def test_an_object_store_is_trusted_by_the_authority_that_is_set_and_by_no_other(
    object_store: ObjectStore, tmp_path: Path
):
    tls, ca_file = server_side(tmp_path)
    async with faulty(object_store.address, tls) as front:
        settings = {"endpoint": front.url, "timeout_s": 3.0}
        bucket = object_store.bucket()
        trusting = S3BlobStore.create(tmp_path / "a", object_store.settings(bucket, ca_file=str(ca_file), **settings))
        blob = await trusting.put(stream(b"abc"), max_bytes=3)
        assert await content(trusting, blob.digest) == b"abc"
        before = front.seen
        doubting = S3BlobStore.create(tmp_path / "b", object_store.settings(bucket, **settings))
        with pytest.raises(StorageUnavailable):
            await doubting.size(blob.digest)
        assert front.seen == before
