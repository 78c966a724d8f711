"""How to sign in at an object store. Nothing is asked that is not set: no metadata service, environment or home directory."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelkeep.contracts.errors import Invalid, StorageUnavailable
from modelkeep.contracts.secret import Secret
from modelkeep.contracts.storage import StorageSettings

if TYPE_CHECKING:
    from obstore.store import S3Credential

    Provider = Callable[[], Coroutine[Any, Any, S3Credential]]

_LOOK_AGAIN: Final = timedelta(minutes=1)


def of(settings: StorageSettings) -> "tuple[dict[str, str], Provider | None]":
    """Return what to configure the client with, and what gives it credentials; raises `Invalid` for what is missing."""
    match settings.sign_in:
        case "keys":
            _keys(settings)
            return {}, lambda: _signed_with_keys(settings)
        case "role":
            _required(settings, "role_arn")
            _keys(settings)
            return {}, lambda: _role(settings)
        case "web-identity":
            _required(settings, "role_arn", "web_identity_token_file")
            return _web_identity(settings), None
        case "instance":
            return {}, None


def _required(settings: StorageSettings, *names: str) -> None:
    for name in names:
        if not getattr(settings, name):
            raise Invalid(f"Set storage.{name}: storage.sign_in = {settings.sign_in} needs it.")


def _keys(settings: StorageSettings) -> tuple[str, Secret]:
    """Return the access key's id and secret; raises `Invalid`."""
    if not settings.keys_file:
        _required(settings, "access_key_id", "secret_access_key")
        return settings.access_key_id, settings.secret_access_key
    try:
        lines = Path(settings.keys_file).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("The file of storage.keys_file cannot be read.") from error
    if len(lines) != 2:  # noqa: PLR2004 - an id and a secret
        raise Invalid("The file of storage.keys_file must have two lines: the access key's id, and its secret.")
    return lines[0], Secret(lines[1])


async def _signed_with_keys(settings: StorageSettings) -> "S3Credential":
    key_id, secret = await asyncio.to_thread(_keys, settings)
    expires_at = datetime.now(UTC) + _LOOK_AGAIN if settings.keys_file else None
    return {"access_key_id": key_id, "secret_access_key": secret.reveal(), "token": None, "expires_at": expires_at}


def _web_identity(settings: StorageSettings) -> "dict[str, str]":
    return {
        "role_arn": settings.role_arn,
        "role_session_name": settings.role_session_name,
        "web_identity_token_file": settings.web_identity_token_file,
        # obstore's own types call it sts_endpoint, which it refuses
        "endpoint_url_sts": settings.sts_endpoint or f"https://sts.{settings.region}.amazonaws.com",
    }


async def _role(settings: StorageSettings) -> "S3Credential":
    return await asyncio.to_thread(_assume_role, settings)


def _assume_role(settings: StorageSettings) -> "S3Credential":
    try:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.session import Session
    except ImportError as error:
        raise StorageUnavailable("Roles need: pip install 'modelkeep[s3-role]'.") from error
    key_id, secret = _keys(settings)
    try:
        client = Session().create_client(
            "sts",
            region_name=settings.region,
            endpoint_url=settings.sts_endpoint or None,
            verify=settings.ca_file or None,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret.reveal(),
        )
        given = client.assume_role(RoleArn=settings.role_arn, RoleSessionName=settings.role_session_name)["Credentials"]
    except (BotoCoreError, ClientError) as error:
        raise StorageUnavailable("The role of storage.role_arn was not given to us.") from error
    return {
        "access_key_id": given["AccessKeyId"],
        "secret_access_key": given["SecretAccessKey"],
        "token": given["SessionToken"],
        "expires_at": given["Expiration"].astimezone(UTC),
    }
