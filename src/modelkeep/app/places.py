"""Where things are below the data directory."""

import os
from dataclasses import dataclass
from pathlib import Path

from modelkeep.contracts.secret import Secret

_GENERATIONS = ("", "b")


def server_name(name: str, slot: int, generation: int) -> str:
    """Return the name of server number `slot`; of two generations that are there at once, each has another."""
    return f"{name}-{slot + 1}{_GENERATIONS[generation]}"


@dataclass(frozen=True)
class Places:
    """The data directory and what is in it."""

    data: Path

    @property
    def run(self) -> Path:
        """Sockets and bells of the running processes."""
        return self.data / "run"

    @property
    def metrics(self) -> Path:
        """What the servers count, one file a server."""
        return self.run / "metrics"

    @property
    def storage_metrics(self) -> Path:
        """What the other processes count of storage."""
        return self.metrics / "storage"

    def bell(self, slot: int, generation: int) -> Path:
        """Return the bell that server number `slot` listens to."""
        return self.run / f"{server_name('server', slot, generation)}.sock"

    def bells(self, slots: int) -> list[Path]:
        """Return the bells of so many servers, and of those who take over from them."""
        return [self.bell(slot, generation) for slot in range(slots) for generation in range(len(_GENERATIONS))]

    @property
    def loading(self) -> Path:
        """What the courier says of its way with the prediction history."""
        return self.run / "history.loading"

    @property
    def shadows(self) -> Path:
        """What servers have seen of shadows, until the courier has carried it up."""
        return self.run / "shadows"

    @property
    def quotas(self) -> Path:
        """What several servers have let through, where there are several."""
        return self.run / "quotas"

    def folders(self, generation: int = 0) -> Path:
        """Where runners of a tree of processes unpack archives, where they cannot do so in memory."""
        return self.run / ("folders-b" if generation else "folders")

    @property
    def snapshot(self) -> Path:
        """The newest snapshot, as serving reads it."""
        return self.data / "serving" / "snapshot"

    @property
    def blobs(self) -> Path:
        """Artifacts by digest."""
        return self.data / "blobs"

    @property
    def copies(self) -> Path:
        """Copies of artifacts that are kept elsewhere."""
        return self.data / "copies"

    @property
    def database(self) -> Path:
        """The SQLite database, where no other is configured."""
        return self.data / "modelkeep.db"

    @property
    def site_key(self) -> Path:
        """The installation's own secret."""
        return self.data / "site.key"

    @property
    def spools(self) -> Path:
        """Predictions on their way to the history, a folder for each server."""
        return self.data / "spool"

    @property
    def setup_token(self) -> Path:
        """The one-time token of the first admin, until it has been used."""
        return self.data / "setup-token"

    def make(self) -> None:
        """Create the folders, for this user alone."""
        for folder in (self.data, self.run, self.snapshot.parent, self.blobs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def keep_setup_token(self, token: Secret) -> None:
        """Leave the one-time token in a file that only this user reads."""
        fd = os.open(self.setup_token, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(token.reveal() + "\n")

    def forget_setup_token(self) -> None:
        """Remove the token's file."""
        self.setup_token.unlink(missing_ok=True)
