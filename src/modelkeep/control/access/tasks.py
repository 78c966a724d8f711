"""What follows for access from what happens to people."""

from modelkeep.control.access.service import Access
from modelkeep.control.users.events import SetUpDone
from modelkeep.infra.db import Transaction
from modelkeep.infra.events import Events


def subscribe(events: Events, access: Access) -> None:
    """Have the first person administer the installation in the transaction that makes them."""

    async def first(tx: Transaction, event: SetUpDone) -> None:
        await access.make_admin(tx, event.user_id, event.request_id)

    events.subscribe(SetUpDone, first)
