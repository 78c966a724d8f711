"""What is asked of one server of a directory: it blocks, and each step has its own timeout.

libldap's own timeouts do not end a handshake of TLS. With StartTLS the connection is therefore ours, and cut when its time is
over; a server of LDAPS, which libldap connects to by itself, has to complete a handshake with us first.
"""

import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import ldap
import ldap.dn

from modelkeep.contracts.auth import Identity, IdentityRefused, LdapSettings
from modelkeep.contracts.errors import Invalid
from modelkeep.plugins.auth.ldap.escaping import in_filter, in_name, raw_of, subject_of

_MOST_GROUPS: Final = 1000
_AT_ONCE: Final = 50
_PORTS: Final = {"ldap": 389, "ldaps": 636}
_REFUSALS: Final = (
    ldap.CONSTRAINT_VIOLATION,
    ldap.INAPPROPRIATE_AUTH,
    ldap.INSUFFICIENT_ACCESS,
    ldap.INVALID_CREDENTIALS,
    ldap.INVALID_DN_SYNTAX,
    ldap.NO_SUCH_OBJECT,
    ldap.UNWILLING_TO_PERFORM,
)
_UNREADABLE: Final = (ldap.INSUFFICIENT_ACCESS, ldap.INVALID_DN_SYNTAX, ldap.NO_SUCH_OBJECT, ldap.REFERRAL)
Connection: TypeAlias = Any  # the library's has no types


class Entry(NamedTuple):
    """An entry of a directory."""

    dn: str
    attributes: dict[str, list[bytes]]

    def texts(self, name: str) -> list[str]:
        """Return the values of an attribute as texts; names of attributes have no case."""
        return [one.decode("utf-8", errors="replace") for one in self.raw(name)]

    def raw(self, name: str) -> list[bytes]:
        """Return the values of an attribute."""
        return next((values for kind, values in self.attributes.items() if kind.casefold() == name.casefold()), [])


def normal(name: str) -> str:
    """Return the name of an entry as it is compared; raises `Invalid` for what is none."""
    try:
        parts = ldap.dn.str2dn(name)
    except ldap.LDAPError as error:
        raise Invalid("A group of a directory is named in whole, such as cn=ml,ou=groups,dc=example,dc=org.") from error
    return ",".join(
        "+".join(f"{kind}={in_name(' '.join(value.casefold().split()))}" for kind, value, _flags in part) for part in parts
    ).casefold()


def checked(settings: LdapSettings) -> LdapSettings:
    """Return settings with the names of groups as they are compared; raises `Invalid` for what cannot work."""
    for server in settings.servers:
        parts = urlsplit(server)
        if parts.scheme not in _PORTS or not parts.hostname or parts.path not in {"", "/"} or parts.query:
            raise Invalid("A server of a directory is written as ldaps://HOST or ldap://HOST, with a port if need be.")
    if bool(settings.bind_dn) == bool(settings.bind_template):
        raise Invalid("A directory needs either a bind_dn or a bind_template.")
    if settings.bind_template and settings.bind_template.count("{login}") != 1:
        raise Invalid("A bind_template has {login} in it, once.")
    if "{login}" not in settings.login_filter or "{dn}" not in settings.group_filter:
        raise Invalid("A login_filter has {login} in it, and a group_filter {dn}.")
    if settings.ca_file:
        try:
            ssl.create_default_context(cafile=settings.ca_file)
        except OSError as error:
            raise Invalid("The file of ca_file cannot be read as certificates (PEM).") from error
    return replace(
        settings,
        groups=tuple(map(normal, settings.groups)),
        group_map={normal(there): here for there, here in settings.group_map.items()},
    )


def password_in(file: str) -> str:
    """Return what a password file holds; raises `Invalid`."""
    try:
        password = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("The file of bind_password_file cannot be read.") from error
    if not password:
        raise Invalid("The file of bind_password_file is empty: nobody binds without a password.")
    return password


class Asking:
    """Asks one server."""

    def __init__(self, settings: LdapSettings, server: str, password: str) -> None:
        self._settings = settings
        self._server = server
        self._password = password
        subject, mail = settings.subject_attribute, settings.email_attribute
        self._attributes = [subject, mail, settings.name_attribute, settings.display_attribute, "memberOf"]

    def identity(self, login: str, password: str) -> Identity:
        """Return who this is; raises `IdentityRefused`, and the library's errors where the server does not answer."""
        if self._settings.bind_template:
            name = self._settings.bind_template.replace("{login}", in_name(login))
            with self._as_person(name, password) as own:
                return self._told(own, self._one(own, name, ldap.SCOPE_BASE, "(objectClass=*)"))
        with self._open(self._settings.bind_dn, self._password) as service:
            found = self._settings.login_filter.replace("{login}", in_filter(login))
            entry = self._one(service, self._settings.base, ldap.SCOPE_SUBTREE, found)
            with self._as_person(entry.dn, password):
                pass
            return self._told(service, entry)

    def again(self, subject: str) -> Identity | None:
        """Return what is known of a subject now; the filter of a login must still find them, with any name."""
        same = f"({self._settings.subject_attribute}={in_filter(raw_of(subject))})"
        found = f"(&{same}{self._settings.login_filter.replace('{login}', '*')})"
        with self._open(self._settings.bind_dn, self._password) as service:
            try:
                entry = self._one(service, self._settings.base, ldap.SCOPE_SUBTREE, found)
            except IdentityRefused:
                return None
            return self._told(service, entry)

    @contextmanager
    def _as_person(self, name: str, password: str) -> Iterator[Connection]:
        """Bind as somebody; a password that the server would take for none has been refused before."""
        try:
            with self._open(name, password) as connection:
                yield connection
        except _REFUSALS as error:
            raise IdentityRefused from error

    @contextmanager
    def _open(self, name: str, password: str) -> Iterator[Connection]:
        parts = urlsplit(self._server)
        place = (parts.hostname or "", parts.port or _PORTS[parts.scheme])
        with closing(socket.create_connection(place, self._settings.timeout_s)) as ours:
            if parts.scheme == "ldaps":
                tls = ssl.create_default_context(cafile=self._settings.ca_file or None)
                tls.wrap_socket(ours.dup(), server_hostname=place[0]).close()
                connection = ldap.initialize(self._server)
            else:
                ours.settimeout(None)
                connection = ldap.initialize(self._server, fileno=ours.dup().detach())
            cut = threading.Timer(self._settings.deadline_s, _shut, [ours])
            cut.start()
            try:
                self._secured(connection, starttls=parts.scheme == "ldap")
                connection.simple_bind_s(name, password)
                yield connection
            finally:
                cut.cancel()
                with suppress(ldap.LDAPError):
                    connection.unbind_s()

    def _secured(self, connection: Connection, *, starttls: bool) -> None:
        connection.set_option(ldap.OPT_PROTOCOL_VERSION, ldap.VERSION3)
        connection.set_option(
            ldap.OPT_REFERRALS, ldap.OPT_OFF
        )  # another server is another server: none but ours gets a password
        connection.set_option(ldap.OPT_NETWORK_TIMEOUT, self._settings.timeout_s)
        connection.set_option(ldap.OPT_TIMEOUT, self._settings.timeout_s)
        connection.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND)
        if self._settings.ca_file:
            connection.set_option(ldap.OPT_X_TLS_CACERTFILE, self._settings.ca_file)
        connection.set_option(ldap.OPT_X_TLS_NEWCTX, 0)  # after all others: it takes them over
        if starttls:
            connection.start_tls_s()

    def _one(self, connection: Connection, base: str, scope: int, found: str) -> Entry:
        """Return the one entry; raises `IdentityRefused` for none and for several."""
        try:
            entries = self._search(connection, base, scope, found, attributes=self._attributes, most=2)
        except (ldap.SIZELIMIT_EXCEEDED, ldap.NO_SUCH_OBJECT) as error:
            raise IdentityRefused from error
        if len(entries) != 1:
            raise IdentityRefused
        return entries[0]

    def _search(
        self, connection: Connection, base: str, scope: int, found: str, *, attributes: list[str], most: int
    ) -> list[Entry]:
        timeout_s = self._settings.timeout_s
        told = connection.search_ext_s(base, scope, found, attributes, timeout=timeout_s, sizelimit=most)
        return [Entry(dn, said) for dn, said in told if dn is not None]  # without a name it refers to another server

    def _told(self, connection: Connection, entry: Entry) -> Identity:
        subjects = entry.raw(self._settings.subject_attribute)
        if len(subjects) != 1:
            raise IdentityRefused("The directory does not say who this is for good: see subject_attribute.")
        (email, *_others) = [*entry.texts(self._settings.email_attribute), ""]
        (name, *_others) = [*entry.texts(self._settings.name_attribute), ""]
        (shown, *_others) = [*entry.texts(self._settings.display_attribute), ""]
        return Identity(
            subject=subject_of(subjects[0]),
            email=email,
            name=name,
            display_name=shown,
            groups=self._groups(connection, entry),
        )

    def _groups(self, connection: Connection, entry: Entry) -> frozenset[str]:
        """Return the groups of an entry and those that these are in, as far as `depth` goes."""
        found: set[str] = set()
        if self._settings.group_base:
            fresh = self._containing(connection, [entry.dn])
        else:
            fresh = set(map(normal, entry.texts("memberOf")))
        for _step in range(self._settings.depth + 1):
            fresh -= found
            found |= fresh
            if len(found) > _MOST_GROUPS:
                raise IdentityRefused("This person is in more groups than are followed: set group_base.")
            if not fresh:
                break
            above = self._containing if self._settings.group_base else self._above
            fresh = above(connection, sorted(fresh))
        return frozenset(found)

    def _containing(self, connection: Connection, names: list[str]) -> set[str]:
        """Return the groups below `group_base` that any of these entries is a member of."""
        found = set()
        for some in _pieces(names):
            each = "".join(self._settings.group_filter.replace("{dn}", in_filter(name)) for name in some)
            entries = self._search(
                connection, self._settings.group_base, ldap.SCOPE_SUBTREE, f"(|{each})", attributes=["1.1"], most=_MOST_GROUPS
            )
            found |= {normal(one.dn) for one in entries}
        return found

    def _above(self, connection: Connection, names: list[str]) -> set[str]:
        """Return what the memberOf of these groups says; of groups of other domains, and hidden ones, nothing."""
        found = set()
        for name in names[:_MOST_GROUPS]:
            with suppress(*_UNREADABLE):  # it gives nothing, and does not keep anybody out
                for one in self._search(connection, name, ldap.SCOPE_BASE, "(objectClass=*)", attributes=["memberOf"], most=1):
                    found |= set(map(normal, one.texts("memberOf")))
        return found


def _pieces(names: list[str]) -> Iterable[list[str]]:
    return (names[at : at + _AT_ONCE] for at in range(0, len(names), _AT_ONCE))


def _shut(ours: socket.socket) -> None:
    with suppress(OSError):
        ours.shutdown(socket.SHUT_RDWR)
