"""Where things are below the data directory."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """The data directory and what is in it."""

    data: Path

    @property
    def run(self) -> Path:
        """Sockets and bells of the running processes."""
        return self.data / "run"

    @property
    def snapshot(self) -> Path:
        """The newest snapshot, as serving reads it."""
        return self.data / "serving" / "snapshot"

    @property
    def blobs(self) -> Path:
        """Artifacts by digest."""
        return self.data / "blobs"

    @property
    def database(self) -> Path:
        """The SQLite database, where no other is configured."""
        return self.data / "modelkeep.db"

    @property
    def setup_token(self) -> Path:
        """The one-time token of the first admin, until it has been used."""
        return self.data / "setup-token"

    def make(self) -> None:
        """Create the folders, for this user alone."""
        for folder in (self.data, self.run, self.snapshot.parent, self.blobs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
