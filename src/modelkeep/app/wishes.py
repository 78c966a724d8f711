"""How many runners of each version there should be: as many as the server that wants most of them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from modelkeep.sandbox.control import Wanted


@dataclass
class Wishes:
    """What each server wants, by the server's name. `most` runners a version is what this machine will bear."""

    most: int
    _by_server: dict[str, dict[str, Wanted]] = field(default_factory=dict)

    def take(self, server: str, wanted: Iterable[Wanted]) -> None:
        """Replace what this server wants."""
        self._by_server[server] = {one.spec.version_id: one for one in wanted}

    def drop(self, server: str) -> None:
        """This server wants nothing any more."""
        self._by_server.pop(server, None)

    def wants(self, server: str, version_id: str) -> bool:
        """Whether this server wants this version."""
        return version_id in self._by_server.get(server, ())

    def versions(self) -> dict[str, Wanted]:
        """Return, for each version that anyone wants, the wish that holds: the largest, by the newest settings."""
        found: dict[str, Wanted] = {}
        for wishes in self._by_server.values():
            for version_id, one in wishes.items():
                before = found[version_id].replicas if version_id in found else 1
                found[version_id] = replace(one, replicas=max(before, min(one.replicas, self.most)))
        return found
