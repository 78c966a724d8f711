"""The first set-up, who I am, and API keys."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response, status

from modelkeep.api.auth import AnyKey, Oneself
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, read_cursor, split
from modelkeep.api.schemas.access import GrantFacts
from modelkeep.api.schemas.users import (
    BindKey,
    IssuedKeyAnswer,
    KeyAnswer,
    MeAnswer,
    NewKey,
    OwnKeyAnswer,
    RotateKey,
    SetUp,
    SetUpAnswer,
    SetUpStateAnswer,
    UserAnswer,
)
from modelkeep.api.schemas.wire import Page
from modelkeep.api.services import Behind
from modelkeep.contracts.certificates import KeyCertificate
from modelkeep.contracts.errors import InvalidName, Limited
from modelkeep.contracts.secret import Secret
from modelkeep.control.access.errors import LastAdmin
from modelkeep.control.models.errors import ModelNotFound
from modelkeep.control.sessions.service import in_session
from modelkeep.control.users.errors import (
    AlreadySetUp,
    CertificateInUse,
    KeyNotFound,
    KeyRotationUnderWay,
    SetupTokenInvalid,
    UserNotFound,
)
from modelkeep.control.users.rules import by_key, certificate_of
from modelkeep.control.users.service import IssuedKey
from modelkeep.infra.passwords import PasswordsBusy, WeakPassword

router = APIRouter(tags=["keys"])
KeyId = Annotated[str, Path(max_length=100, description="The key's id.")]


@router.get("/setup")
@raises(Limited)
async def get_set_up_state(behind: Behind) -> SetUpStateAnswer:
    """Say whether the first administrator is still to be made; needs no key."""
    return SetUpStateAnswer(needed=not await behind.users.anyone())


@router.post("/setup", status_code=status.HTTP_201_CREATED)
@raises(AlreadySetUp, InvalidName, Limited, PasswordsBusy, SetupTokenInvalid, WeakPassword)
async def set_up(body: SetUp, request: Request, behind: Behind) -> SetUpAnswer:
    """Exchange the one-time token that `serve` printed for the first administrator's key.

    With an e-mail address and a password, the administrator can log in, too.
    """
    user, issued = await behind.users.set_up(
        Secret(body.token),
        body.name,
        request.state.request_id,
        request.state.address,
        email=body.email,
        password=body.password,
    )
    return SetUpAnswer(user=UserAnswer.model_validate(user), key=_with_secret(issued))


@router.get("/me")
@raises(KeyNotFound, UserNotFound)
async def get_me(actor: AnyKey, behind: Behind) -> MeAnswer:
    """Say who asks, and what they may do."""
    key = OwnKeyAnswer.model_validate(await behind.users.key(actor.id)) if by_key(actor) else None
    user = UserAnswer.model_validate(await behind.users.user(actor.user))
    return MeAnswer(
        key=key,
        session=actor.id if in_session(actor) else None,
        user=user,
        scopes=None if actor.standing.scopes is None else sorted(actor.standing.scopes),
        roles=[GrantFacts.model_validate(grant) for grant in actor.standing.grants],
    )


@router.post("/keys", status_code=status.HTTP_201_CREATED)
@raises(CertificateInUse, ModelNotFound, UserNotFound)
async def issue_key(body: NewKey, actor: Oneself, behind: Behind) -> IssuedKeyAnswer:
    """Make a key of your own; its secret is in this answer and nowhere else. It never lets anyone do more than you may.

    Administrators make keys of services, too.
    """
    models = None if body.models is None else [await behind.models.place(actor, name) for name in body.models]
    issued = await behind.users.issue_key(
        actor,
        body.name,
        frozenset(body.scopes),
        body.expires_in_days,
        rate=body.rate,
        burst=body.burst,
        concurrency=body.concurrency,
        service=body.service,
        models=None if models is None else tuple(place.model for place in models),
        networks=body.networks,
        certificate=_certificate(body.certificate),
    )
    return _with_secret(issued)


@router.get("/keys")
@raises(InvalidCursor)
async def list_keys(actor: AnyKey, behind: Behind, limit: Limit = 50, cursor: Cursor = None) -> Page[KeyAnswer]:
    """List your keys, newest first; administrators see everybody's."""
    found = await behind.users.keys(actor, limit=limit + 1, before=read_cursor(cursor))
    page, next_cursor = split(found, limit, lambda key: key.id)
    return Page(items=[KeyAnswer.model_validate(key) for key in page], next_cursor=next_cursor)


@router.delete("/keys/{key_id}", status_code=status.HTTP_204_NO_CONTENT)
@raises(KeyNotFound, LastAdmin)
async def revoke_key(key_id: KeyId, actor: Oneself, behind: Behind) -> Response:
    """Revoke a key of yours, or as an administrator anybody's: it opens nothing from now on."""
    await behind.users.revoke_key(actor, key_id)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.post("/keys/{key_id}/rotate", status_code=status.HTTP_201_CREATED)
@raises(KeyNotFound, KeyRotationUnderWay)
async def rotate_key(body: RotateKey, key_id: KeyId, actor: Oneself, behind: Behind) -> IssuedKeyAnswer:
    """Give a key of yours another secret, which is in this answer and nowhere else; the present one is good for `keep_days`.

    Administrators rotate keys of services, too.
    """
    return _with_secret(await behind.users.rotate_key(actor, key_id, body.keep_days))


@router.put("/keys/{key_id}/certificate")
@raises(CertificateInUse, KeyNotFound, LastAdmin)
async def bind_key(body: BindKey, key_id: KeyId, actor: Oneself, behind: Behind) -> KeyAnswer:
    """Have a key of yours go with these client certificates alone, on open connections, too.

    Administrators bind keys of services, too. A key that is bound stays so.
    """
    certificate = certificate_of(body.names, stands_for=body.stands_for)
    return KeyAnswer.model_validate(await behind.users.bind_key(actor, key_id, certificate))


@router.delete("/keys/{key_id}/previous", status_code=status.HTTP_204_NO_CONTENT)
@raises(KeyNotFound)
async def end_previous_secret(key_id: KeyId, actor: Oneself, behind: Behind) -> Response:
    """End the secret that a key of yours, or as an administrator anybody's, had before: it opens nothing from now on."""
    await behind.users.end_previous(actor, key_id)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


def _certificate(given: BindKey | None) -> KeyCertificate | None:
    return None if given is None else certificate_of(given.names, stands_for=given.stands_for)


def _with_secret(issued: IssuedKey) -> IssuedKeyAnswer:
    return IssuedKeyAnswer(**KeyAnswer.model_validate(issued.key).model_dump(), secret=issued.secret.reveal())
