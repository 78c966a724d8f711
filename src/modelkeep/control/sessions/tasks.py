"""What sessions do when something happens to a user, in the same transaction: they end."""

from modelkeep.control.sessions.service import Sessions
from modelkeep.control.users.events import PasswordChanged, UserDisabled
from modelkeep.infra.db import Transaction
from modelkeep.infra.events import Events


def subscribe(events: Events, sessions: Sessions) -> None:
    """Have sessions hear of users."""

    async def on_disabled(tx: Transaction, event: UserDisabled) -> None:
        await sessions.end_all_in(tx, event.user_id)

    async def on_password(tx: Transaction, event: PasswordChanged) -> None:
        await sessions.end_all_in(tx, event.user_id, kept=event.kept)

    events.subscribe(UserDisabled, on_disabled)
    events.subscribe(PasswordChanged, on_password)
