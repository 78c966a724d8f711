"""The news for serving: everything that it needs to answer, put together from all nouns at the end of a transaction."""

from typing import Final

import msgspec

from modelkeep.contracts.snapshot import Limits, encode_snapshot
from modelkeep.control.access.service import Access
from modelkeep.control.deployments import store
from modelkeep.control.deployments.rules import compile_snapshot, served_version
from modelkeep.control.models.service import Models
from modelkeep.control.safety.service import Switches
from modelkeep.control.sessions.service import Sessions
from modelkeep.infra.broadcast import Broadcast
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Transaction

SNAPSHOT: Final = "snapshot"


class News:
    """Compiles snapshots, and publishes them."""

    def __init__(
        self,
        *,
        access: Access,
        models: Models,
        switches: Switches,
        sessions: Sessions,
        broadcast: Broadcast,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._access = access
        self._models = models
        self._switches = switches
        self._sessions = sessions
        self._broadcast = broadcast
        self._clock = clock
        self._limits = limits

    async def publish(self, tx: Transaction) -> None:
        """Compile the snapshot and publish it, as the last thing that a transaction does."""
        number = await self._broadcast.take_number(tx, SNAPSHOT)  # the row lock first: contents can then only go forward
        open_models = await self._models.open_models(tx)
        deployments = [one for one in await store.answering(tx) if one.model_id in open_models]
        aliases = await self._models.pointed_to(tx, {one.model_id for one in deployments})
        ids = {one.version_id for one in deployments if one.version_id is not None}
        ids |= {version_id for pointed_to in aliases.values() for version_id in pointed_to.values()}
        ids |= {version_id for one in deployments for version_id in one.traffic.version_ids}
        accepted = (await self._switches.safety_in(tx)).accepted
        served = [served_version(version, labels, self._limits) for version, labels in await self._models.served(tx, ids)]
        versions = [version for version in served if version is not None]
        now = self._clock()
        keys = await self._access.served_keys(tx)
        people = await self._access.served_people(tx)
        trust = msgspec.structs.replace(await self._sessions.trusted(tx), people=people)
        places = await self._models.places(tx, {one.model_id for one in deployments})
        snapshot = compile_snapshot(
            number, now, deployments, versions, keys, accepted=accepted, aliases=aliases, places=places, trust=trust
        )
        await self._broadcast.publish(tx, SNAPSHOT, number, encode_snapshot(snapshot), now)
