"""The key that stands for callers who bring none, where a platform's contract has no place for keys.

Vertex AI and SageMaker call their containers without a credential, over a network of their own. An installation may name a key
that counts for such calls (`serving.stand_in_key_file`): on these routes, and nowhere else. See
docs/decisions/0021-callers-without-keys.md.
"""

from collections.abc import Collection
from typing import Final

from modelkeep.contracts.access import Scope
from modelkeep.contracts.snapshot import ServedKey
from modelkeep.infra import cookies
from modelkeep.serving.keys import Keys
from modelkeep.serving.messages import Request

SAGEMAKER_ROUTES: Final = ("/invocations",)
"""What a SageMaker container is asked on, by its contract."""


class StandIn:
    """Stands for callers without a key on `routes`, exact paths. `digest` is the SHA-256 of the key that counts, or b""."""

    def __init__(self, keys: Keys, digest: bytes, routes: Collection[str]) -> None:
        self._keys = keys
        self._digest = digest
        self._routes = frozenset(route for route in routes if route)

    def covers(self, request: Request) -> bool:
        """Whether it stands for this caller: on these routes, for who shows no credential of any kind, and is no web page."""
        return bool(self._digest) and request.path in self._routes and cookies.shows_nothing(request.headers)

    def key(self, scope: Scope) -> ServedKey:
        """Return the key that counts; raises as `Keys.check` does, for it can expire and be revoked as any other."""
        return self._keys.check_digest(self._digest, scope)
