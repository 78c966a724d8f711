"""How many runners of each version there should be: as many as the server that wants most of them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from modelkeep.contracts.snapshot import RunnerSpec
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

    def versions(self) -> dict[str, tuple[RunnerSpec, int]]:
        """Return, for each version that anyone wants, how to start it and how many runners there should be."""
        found: dict[str, tuple[RunnerSpec, int]] = {}
        for wishes in self._by_server.values():
            for version_id, one in wishes.items():
                spec, before = found.get(version_id, (one.spec, 1))
                found[version_id] = (spec, max(before, min(one.replicas, self.most)))
        return found
