"""Wire shapes of people and keys."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from modelkeep.api.schemas.access import GrantFacts
from modelkeep.api.schemas.wire import Answer, Ask, Name
from modelkeep.contracts.access import Scope
from modelkeep.contracts.certificates import LONGEST_NAME, MOST_NAMES
from modelkeep.control.users.rules import LONGEST_EMAIL, LONGEST_OVERLAP_DAYS, SHARED, Kind, Status
from modelkeep.infra.passwords import LONGEST, SHORTEST

Email = Annotated[str, Field(min_length=3, max_length=LONGEST_EMAIL, description="An e-mail address; case does not matter.")]
Password = Annotated[
    str, Field(max_length=LONGEST, description=f"At least {SHORTEST} characters, and none that is well known.")
]


class SetUpStateAnswer(Answer):
    """Whether the first administrator is still to be made."""

    needed: bool


class SetUp(Ask):
    """Make the first administrator."""

    token: Annotated[str, Field(max_length=200)]
    name: Name = "admin"
    email: Email | None = None
    password: Password | None = None


class BindKey(Ask):
    """The client certificates that a key goes with: without one of them it is good for nothing."""

    names: Annotated[
        tuple[Annotated[str, Field(max_length=LONGEST_NAME)], ...],
        Field(
            min_length=1,
            max_length=MOST_NAMES,
            description="Alternative names as `dns:scoring.example.org` or `uri:spiffe://example.org/scoring`, and "
            "fingerprints (SHA-256) as `sha256:` with hexadecimal digits; a certificate has one of them.",
        ),
    ]
    stands_for: Annotated[
        bool,
        Field(
            description="Whether the certificate is enough: a request that shows no credential counts as the key's. "
            "Administrators of the installation alone say so."
        ),
    ] = False


class NewKey(Ask):
    """Make a key."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    service: (
        Annotated[str, Field(max_length=100, description="Id of the service it is for; else it is for oneself.")] | None
    ) = None
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=20)]
    expires_in_days: Annotated[int, Field(strict=True, ge=1, le=36500)] | None = None
    models: Annotated[
        list[Annotated[str, Field(max_length=100)]] | None,
        Field(max_length=1000, description="The names of the models that it is good for; all that you may use, else."),
    ] = None
    rate: Annotated[
        str,
        Field(
            max_length=63,
            description="`user` for the rate that this user's keys and sessions share, requests a minute as `100/min`, a class "
            "of the settings, or `unlimited`; more than `user` allows is given by administrators alone.",
        ),
    ] = SHARED
    burst: Annotated[
        int | None,
        Field(strict=True, ge=1, le=100_000_000, description="Most requests at once; else a sixth of a minute's."),
    ] = None
    concurrency: Annotated[
        int | None,
        Field(strict=True, ge=1, le=1_000_000, description="Most predictions under way at once, on all servers; else any."),
    ] = None
    networks: Annotated[
        tuple[Annotated[str, Field(max_length=50)], ...],
        Field(max_length=50, description="Networks (CIDRs) from which alone the key is good; none for all."),
    ] = ()
    certificate: BindKey | None = None


class RotateKey(Ask):
    """Give a key another secret."""

    keep_days: Annotated[
        int, Field(strict=True, ge=0, le=LONGEST_OVERLAP_DAYS, description="How long the present secret stays good, in days.")
    ] = 7


class UserAnswer(Answer):
    """A person, or a service."""

    id: str
    name: str
    email: str | None
    display_name: str
    kind: Kind
    status: Status
    created_at: datetime


class CertificateFacts(Answer):
    """The client certificates that a key goes with, by their names; whether one of them is enough."""

    names: list[str]
    stands_for: bool


class KeyAnswer(Answer):
    """A key, without its secret. `last_used_at` is of the present one, `previous_used_at` of the one before its rotation."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    rate: str
    burst: int | None
    concurrency: int | None
    user_id: str
    models: list[str] | None
    rotated_at: datetime | None
    previous_until: datetime | None
    previous_used_at: datetime | None
    networks: list[str]
    certificate: CertificateFacts | None


class IssuedKeyAnswer(KeyAnswer):
    """A new key; its secret is shown here and never again."""

    secret: str


class SetUpAnswer(Answer):
    """The first administrator and their key."""

    user: UserAnswer
    key: IssuedKeyAnswer


class OwnKeyAnswer(Answer):
    """The key that asks."""

    id: str
    name: str
    scopes: list[Scope]
    expires_at: datetime | None


class MeAnswer(Answer):
    """Who asks: with a key, or in a session. `scopes` bound a key; null, as in a session, bounds nothing."""

    key: OwnKeyAnswer | None
    session: str | None
    user: UserAnswer
    scopes: list[Scope] | None
    roles: list[GrantFacts]
