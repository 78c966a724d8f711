"""What commands do to the site key: replace it, with or without a running installation, so that nobody notices.

Between the steps every process must be started again, or one would seal with a key that another does not know.
"""

from typing import TYPE_CHECKING

import msgspec

from modelkeep.app import roles, storage_work
from modelkeep.app.control_plane import control_plane
from modelkeep.app.places import Places
from modelkeep.contracts.actor import SYSTEM
from modelkeep.contracts.errors import Conflict
from modelkeep.control.audit.rules import Carried as Trail
from modelkeep.control.sessions.rules import Resealed
from modelkeep.infra import site_key
from modelkeep.infra.site_key import SiteKey

if TYPE_CHECKING:
    from modelkeep.app.settings import Settings
    from modelkeep.infra.db import Database


class StillNeeded(Conflict):
    """A process goes on with the site key from before: restart Modelkeep everywhere, then try again."""

    code = "site_key_needed"


class Carried(msgspec.Struct, frozen=True):
    """What became of everything that a site key seals.

    `answers` are those to people's writes with an Idempotency-Key, of the last day: they stay as they are, and open with the
    key from before. `trail` is what is carried over of the audit trail.
    """

    signing_keys: Resealed = Resealed()
    trail: Trail = Trail()
    answers: int = 0


def add(settings: "Settings") -> None:
    """Have a new key wait beside the present one; raises `SiteKeyRotationUnderWay`."""
    site_key.add(Places(settings.data).site_key)


async def rotate(settings: "Settings") -> Carried:
    """Seal with the key that waited, or go on with that; returns what was carried over. It may be repeated."""
    places = Places(settings.data)
    site_key.opened(places.site_key)
    async with storage_work.database(settings, places) as db:
        carried = Carried() if db is None else await _carry(settings, db, site_key.turned(places.site_key))
    site_key.turn(places.site_key)
    return carried


async def forget(settings: "Settings") -> Carried:
    """Forget the key from before; raises `StillNeeded`, and `SiteKeyRotationUnderWay` while another one waits.

    What was made with it after all has been carried over in any case.
    """
    places = Places(settings.data)
    async with storage_work.database(settings, places) as db:
        carried = Carried() if db is None else await _carry(settings, db, site_key.opened(places.site_key))
    if carried.signing_keys.rewritten or carried.trail.late:
        raise StillNeeded
    site_key.forget(places.site_key)
    return carried


async def _carry(settings: "Settings", db: "Database", keys: SiteKey) -> Carried:
    control = control_plane(db, ring_worker=_silent, ring_courier=_silent, limits=roles.limits(settings), site=keys)
    sealed = await control.sessions.reseal(SYSTEM)
    trail = await control.audit.reseal(SYSTEM, await control.users.everybody())
    return Carried(sealed, trail, await control.idempotency.answers_to("ses_"))


def _silent() -> None:
    """Ring nobody."""
