"""How people come in, put together: what the api needs, and the worker, which follows them."""

from datetime import timedelta
from pathlib import Path
from typing import Any, TypedDict

from modelkeep.api.settings import AuthSettings
from modelkeep.app.control_plane import ControlPlane
from modelkeep.app.places import Places
from modelkeep.contracts import discovery
from modelkeep.contracts.auth import LdapSettings, OidcSettings
from modelkeep.contracts.errors import Invalid
from modelkeep.control.identities.service import Identities
from modelkeep.control.links.rules import Registration
from modelkeep.control.links.service import Links
from modelkeep.control.sessions.rules import Life
from modelkeep.control.sessions.service import Sessions
from modelkeep.control.users.events import SetUpDone
from modelkeep.infra import site_key
from modelkeep.infra.clock import utc_now
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.passwords import Passwords, read_known
from modelkeep.worker.following import Follower


class PeopleServices(TypedDict):
    """The services of people beside `Users`."""

    sessions: Sessions
    links: Links
    identities: Identities
    browsers: Life


def services(control: ControlPlane, db: Database, places: Places, settings: AuthSettings) -> PeopleServices:
    """Build them, and have the setup token's file hear of users; raises `Invalid` for a site key that is none."""
    links = _links(control, db, settings)
    browsers = Life(timedelta(minutes=settings.browser_idle_minutes), timedelta(hours=settings.browser_hours), browser=True)

    async def on_set_up(tx: Transaction, event: SetUpDone) -> None:
        del event
        tx.after_commit(places.forget_setup_token)

    control.events.subscribe(SetUpDone, on_set_up)
    identities = _identities(control, db, places, settings, links)
    return {"sessions": control.sessions, "links": links, "identities": identities, "browsers": browsers}


def follower(control: ControlPlane, db: Database, places: Places, settings: AuthSettings) -> Follower:
    """Return what follows people of providers, in the worker."""
    return Follower(_identities(control, db, places, settings, _links(control, db, settings)))


def _links(control: ControlPlane, db: Database, settings: AuthSettings) -> Links:
    return Links(
        db=db,
        users=control.users,
        audit=control.audit,
        passwords=control.passwords,
        registration=Registration(settings.registration),
        may_invite=control.access.administers,
        clock=utc_now,
    )


def _identities(control: ControlPlane, db: Database, places: Places, settings: AuthSettings, links: Links) -> Identities:
    return Identities(
        db=db,
        users=control.users,
        access=control.access,
        sessions=control.sessions,
        links=links,
        audit=control.audit,
        site_key=site_key.opened(places.site_key),
        clock=utc_now,
        code=[_provider("oidc", one) for one in settings.oidc],
        password=[_provider("ldap", one) for one in settings.ldap],
    )


def _provider(kind: str, settings: OidcSettings | LdapSettings) -> Any:  # noqa: ANN401 - each kind has its own protocol
    """Return an identity provider; raises `Invalid`, naming it, for settings that cannot be used."""
    try:
        return discovery.find(discovery.AUTH, kind)(settings, utc_now)
    except ImportError as error:
        raise Invalid(f"auth.{kind} needs: pip install 'modelkeep[{kind}]'") from error
    except Invalid as error:
        raise Invalid(f"The identity provider {settings.name} cannot be used: {error.message}") from error


def passwords(settings: AuthSettings) -> Passwords:
    """Return what hashes and checks passwords; raises `Invalid` for a list that cannot be read."""
    return Passwords(read_known(Path(settings.known_passwords_file)) if settings.known_passwords_file else frozenset())
