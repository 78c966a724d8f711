"""Whoever asks for a change: a person or a service, by a key, a session or another system's token, or the system itself."""

import msgspec

from modelkeep.contracts.access import INSTALLATION, Grant, Place, Role, Scope, Standing, decide, sees
from modelkeep.contracts.errors import Forbidden, NotFound


class Actor(msgspec.Struct, frozen=True):
    """An authenticated caller. `id` is the key's or the session's (or "system"), `name` is what people read.

    `user` is the person or service behind it. `address` is the one that the request came from, "" where there is none.
    `limited`: rates hold for them, as for whoever has a session, or a key that is not unlimited. `bounded`: what they ask with
    is good from some networks, with some certificates, until some day, at some rate of its own or for so many at once alone;
    what it may do is `standing`'s.
    """

    id: str
    name: str
    user: str = ""
    standing: Standing = Standing("")
    request_id: str = ""
    address: str = ""
    limited: bool = False
    bounded: bool = False

    def may(self, scope: Scope, place: Place = INSTALLATION) -> bool:
        """Whether the actor may do this here."""
        return decide(self.standing, scope, place).allowed

    def need(self, scope: Scope, place: Place = INSTALLATION, *, unseen: type[NotFound] | None = None) -> None:
        """Raise `Forbidden` unless the actor may do this here; `unseen` where they may not know that the place is there."""
        found = decide(self.standing, scope, place)
        if found.allowed:
            return
        if unseen is not None and not sees(self.standing, place):
            raise unseen
        raise Forbidden(_TEXTS.get(found.reason, _NO_GRANT).format(scope=scope.value))

    def carry(self, scope: Scope) -> None:
        """Raise `Forbidden` where the actor's key lacks this scope, so that they may do it nowhere."""
        if not self.standing.carries(scope):
            raise Forbidden(_TEXTS["scope"].format(scope=scope.value))

    def carry_all(self) -> None:
        """Raise `Forbidden` where the actor's key is bounded at all: through what this allows, one could pass its bounds."""
        self.carry(Scope.ADMIN)
        if self.standing.models is not None:
            raise Forbidden(_TEXTS["other_model"])
        if self.bounded:
            raise Forbidden(_BOUNDED)


_NO_GRANT = "You may not do that here: it needs a role that gives {scope!r}."
_TEXTS = {
    "scope": "This key may not do that: it needs the scope {scope!r}.",
    "other_model": "This key is bound to other models.",
}
_BOUNDED = (
    "This needs a session, or a key without networks, certificates, end and rate of its own: with a bounded one, one could "
    "pass its bounds."
)
SYSTEM = Actor("system", "modelkeep", standing=Standing("system", (Grant(Role.ADMIN, "installation"),)))
