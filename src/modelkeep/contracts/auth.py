"""The protocols of identity providers: who somebody is, as another system says. Found by entry point (`modelkeep.auth`).

A provider proves who asks; whether they may come in, as whom and into which groups, is decided here, by its settings.
`CodeProvider` sends a browser away and gets it back with a code (OpenID Connect); `PasswordProvider` is asked with a name and a
password (LDAP), and can be asked again later what it knows of somebody.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, ClassVar, Final, Literal, Protocol

import msgspec
from annotated_types import Interval, MinLen

from modelkeep.contracts.errors import Unauthenticated, Unavailable

LONGEST_LOGIN: Final = 256


class IdentityRefused(Unauthenticated):
    """The identity provider's answer lets nobody in: begin again; if that does not help, ask your administrator."""

    code = "identity_refused"


class ProviderUnavailable(Unavailable):
    """The identity provider does not answer, or not as it should: try again soon."""

    code = "identity_provider_unavailable"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, retry_after_s=5)


class ProviderBusy(ProviderUnavailable):
    """Too many ask the identity provider at once: try again soon."""

    code = "identity_provider_busy"


class Identity(msgspec.Struct, frozen=True):
    """Who somebody is, as a provider says. `subject` is theirs for good there; anything else may change."""

    subject: str
    email: str = ""
    email_verified: bool = False
    name: str = ""
    display_name: str = ""
    groups: frozenset[str] = frozenset()


class Challenge(msgspec.Struct, frozen=True):
    """What binds a login to the browser that began it. Each is random and used once."""

    state: str
    nonce: str
    verifier: str

    def __repr__(self) -> str:
        return "Challenge(hidden)"


@dataclass(frozen=True, kw_only=True)
class ProviderSettings:
    """Who of a provider's people may come in, and into which groups."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: Annotated[str, "What it is called in addresses: small letters, digits and hyphens.", MinLen(1)]
    title: Annotated[str, "What people read where they choose it."] = ""
    people: Annotated[
        Literal["known", "invited", "all"],
        "Who may come in: whom this installation knows already, beside them who was invited, or all that it has.",
    ] = "known"
    domains: Annotated[tuple[str, ...], "Only people whose e-mail address is of one of these domains; empty for any."] = ()
    groups: Annotated[tuple[str, ...], "Only people of one of these groups; empty for any."] = ()
    link_by_email: Annotated[
        bool,
        "Whether somebody who comes for the first time with the verified e-mail address of a user here is that user: who can "
        "have an address verified there, can then become that user.",
    ] = False
    trust_emails: Annotated[bool, "Whether e-mail addresses count as verified although the provider does not say so."] = False
    group_map: Annotated[
        dict[str, str],
        "Group here by group there. At each login a person is put into the groups here that theirs stand for, and taken out of "
        "the others that are named here.",
    ] = field(default_factory=dict)
    default_role: Annotated[
        str,
        "Role on the installation that people are given when they first come, where no invitation says one; empty for none.",
    ] = ""
    timeout_s: Annotated[float, "How long one attempt to reach it may take, in seconds.", Interval(ge=0.1, le=60)] = 5.0
    ca_file: Annotated[
        str, "File with the certificates (PEM) of the authority that signed its own; empty means the system's."
    ] = ""


@dataclass(frozen=True, kw_only=True)
class OidcSettings(ProviderSettings):
    """An OpenID provider."""

    issuer: Annotated[str, "Its issuer, exactly as it writes it.", MinLen(1)]
    client_id: Annotated[str, "What it calls this installation.", MinLen(1)]
    redirect_uri: Annotated[str, "Where it sends people back to, exactly as it is registered there.", MinLen(1)]
    client_secret_file: Annotated[str, "File with the client's secret; empty for a client without one."] = ""
    client_auth: Annotated[Literal["client_secret_basic", "client_secret_post"], "How the secret is sent."] = (
        "client_secret_basic"
    )
    scopes: Annotated[tuple[str, ...], "Scopes to ask for."] = ("openid", "email", "profile")
    algorithms: Annotated[
        tuple[Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"], ...],
        "Algorithms that its tokens may be signed with.",
        MinLen(1),
    ] = ("RS256",)
    skew_s: Annotated[int, "How far its clock may be from ours, in seconds.", Interval(ge=0, le=300)] = 60
    jwks_file: Annotated[str, "File with its public keys (JWKS), for where they are not fetched; empty fetches them."] = ""
    authorization_endpoint: Annotated[str, "Where people log in; empty has it tell this and the next four."] = ""
    token_endpoint: Annotated[str, "Where a code is exchanged."] = ""
    jwks_uri: Annotated[str, "Where its public keys are."] = ""
    userinfo_endpoint: Annotated[str, "Where it tells more of a person."] = ""
    end_session_endpoint: Annotated[str, "Where people log out of it."] = ""
    userinfo: Annotated[bool, "Whether to ask it for claims that are not in its ID token."] = False
    groups_claim: Annotated[str, "The claim with a person's groups."] = "groups"
    name_claim: Annotated[str, "The claim that a new user's name is made from."] = "preferred_username"
    logout_uri: Annotated[str, "Where it sends people after they have logged out of it, as it is registered there."] = ""
    service_audience: Annotated[str, "The audience of access tokens that stand for services here; empty takes none."] = ""
    services: Annotated[dict[str, str], "Name of the service here by the `sub` of such tokens."] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LdapSettings(ProviderSettings):
    """A directory (LDAP)."""

    trust_emails: Annotated[
        bool, "Whether e-mail addresses count as verified: not where people may change their own in the directory."
    ] = True

    servers: Annotated[
        tuple[str, ...],
        "Addresses, asked in this order: ldaps://HOST, or ldap://HOST, where StartTLS comes first.",
        MinLen(1),
    ]
    base: Annotated[str, "Where people are looked for.", MinLen(1)]
    bind_dn: Annotated[str, "Who looks for people; empty has people bind by `bind_template`."] = ""
    bind_password_file: Annotated[str, "File with the password of `bind_dn`."] = ""
    bind_template: Annotated[str, "Name of a person's entry, such as uid={login},ou=people,dc=example,dc=org."] = ""
    login_filter: Annotated[str, "What finds a person's one entry."] = "(uid={login})"
    subject_attribute: Annotated[str, "The attribute that is a person's for good; objectGUID in Active Directory."] = (
        "entryUUID"
    )
    email_attribute: Annotated[str, "The attribute with the e-mail address."] = "mail"
    name_attribute: Annotated[str, "The attribute that a new user's name is made from."] = "uid"
    display_attribute: Annotated[str, "The attribute with the name that is shown."] = "cn"
    group_base: Annotated[str, "Where groups are looked for; empty takes what an entry's memberOf says."] = ""
    group_filter: Annotated[str, "What finds the groups that an entry is a member of."] = "(member={dn})"
    depth: Annotated[int, "How many groups within groups are followed.", Interval(ge=0, le=20)] = 5
    deadline_s: Annotated[
        float, "How long all attempts to reach any of its servers may take together, in seconds.", Interval(ge=0.1, le=120)
    ] = 12.0


class CodeProvider(Protocol):
    """A provider that people are sent to."""

    settings: OidcSettings

    async def address(self, challenge: Challenge) -> str:
        """Return where to send a browser; raises `ProviderUnavailable`."""
        ...

    async def identity(self, code: str, issuer: str | None, challenge: Challenge) -> Identity:
        """Return who came back with this code, and with this `iss` if any; raises `IdentityRefused`, `ProviderUnavailable`."""
        ...

    async def service(self, token: str) -> str:
        """Return the name of the service that an access token stands for; raises `Unauthenticated`, `ProviderUnavailable`."""
        ...

    async def logout_address(self) -> str | None:
        """Return where people log out of the provider, if it has such a place; raises `ProviderUnavailable`."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class PasswordProvider(Protocol):
    """A provider that is asked with a name and a password."""

    settings: LdapSettings

    async def identity(self, login: str, password: str) -> Identity:
        """Return who this is; raises `IdentityRefused`, `ProviderUnavailable`."""
        ...

    async def again(self, subject: str) -> Identity | None:
        """Return what is known of somebody now, None where they are gone; raises `ProviderUnavailable`."""
        ...

    @property
    def follows(self) -> bool:
        """Whether it can be asked again."""
        ...

    async def close(self) -> None:
        """Let go of threads and connections."""
        ...


Clock = Callable[[], datetime]
