"""What follows for access from what happens to people, in the same transaction."""

import msgspec

from modelkeep.contracts.access import Role
from modelkeep.contracts.actor import SYSTEM
from modelkeep.control.access.service import Access
from modelkeep.control.users.events import MayHaveBeenLast, SetUpDone, UserAdded
from modelkeep.infra.db import Transaction
from modelkeep.infra.events import Events


def subscribe(events: Events, access: Access) -> None:
    """Have the first person administer, newcomers get their role, and nobody be the last who could administer."""

    async def on_set_up(tx: Transaction, event: SetUpDone) -> None:
        actor = msgspec.structs.replace(SYSTEM, request_id=event.request_id)
        await access.give_in(tx, actor, event.user_id, Role.ADMIN)

    async def on_added(tx: Transaction, event: UserAdded) -> None:
        if event.role is not None:
            await access.give_in(tx, event.actor, event.user_id, event.role)

    async def on_maybe_last(tx: Transaction, event: MayHaveBeenLast) -> None:
        del event
        await access.check_admins(tx)

    events.subscribe(SetUpDone, on_set_up)
    events.subscribe(UserAdded, on_added)
    events.subscribe(MayHaveBeenLast, on_maybe_last)
