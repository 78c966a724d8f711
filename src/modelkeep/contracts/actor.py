"""Whoever asks for a change: a person through a key, or the system itself."""

import msgspec

from modelkeep.contracts.errors import Forbidden
from modelkeep.contracts.snapshot import Scope


class Actor(msgspec.Struct, frozen=True):
    """An authorised caller. `id` is the key's (or "system"), `name` is what people read, `user` the person behind the key.

    `limited`: rates hold for them, as for whoever has a key that is not unlimited.
    """

    id: str
    name: str
    user: str = ""
    scopes: frozenset[Scope] = frozenset()
    request_id: str = ""
    limited: bool = False

    def may(self, scope: Scope) -> bool:
        """Whether the actor carries `scope`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def need(self, scope: Scope) -> None:
        """Raise `Forbidden`, naming the scope, unless the actor carries it."""
        if not self.may(scope):
            raise Forbidden(f"This key may not do that: it needs the scope {scope.value!r}.")


SYSTEM = Actor("system", "modelkeep", scopes=frozenset({Scope.ADMIN}))
