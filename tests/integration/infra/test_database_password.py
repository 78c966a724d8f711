"""PostgreSQL's password is changed while everything runs: from a file, read anew for each connection."""

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from fixtures.databases import new_postgres_database
from modelkeep.contracts.secret import Secret
from modelkeep.infra.db import Database, DatabaseUnavailable
from modelkeep.infra.job_engine import EngineClosed, waiting_engine
from modelkeep.infra.settings import DatabaseSettings

ROLE = "with_password"


class Server:
    """A database whose one role needs a password, and that role's password."""

    def __init__(self, address: str) -> None:
        self._owner = new_postgres_database(address)
        self.url = self._owner.replace("postgres@", f"{ROLE}@")

    def password(self, password: str) -> None:
        """Change it, and cut everybody off who has come in with the one before."""
        with psycopg.connect(self._owner, autocommit=True) as connection:
            connection.execute(f"ALTER ROLE {ROLE} PASSWORD '{password}'")
            connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'")


@pytest.fixture
def server(postgres: str) -> Iterator[Server]:
    """The server asks this role alone for a password."""
    with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
        (path,) = connection.execute("SHOW hba_file").fetchone() or ("",)
        before = Path(path).read_text()
        Path(path).write_text(f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n{before}")
        connection.execute(f"CREATE ROLE {ROLE} LOGIN")
        connection.execute("SELECT pg_reload_conf()")
    made = Server(postgres)
    yield made
    made.password("of nobody")
    Path(path).write_text(before)
    with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP ROLE {ROLE}")
        connection.execute("SELECT pg_reload_conf()")


async def answers(db: Database) -> bool:
    try:
        async with db.read() as tx:
            return await tx.one(sa.text("SELECT 1")) is not None
    except DatabaseUnavailable:
        return False


async def test_a_changed_password_is_taken_from_its_file_with_the_next_connection(server: Server, tmp_path: Path):
    file = tmp_path / "password"
    db = Database(DatabaseSettings(url=server.url, password_file=str(file), busy_timeout_s=2))
    server.password("one")
    assert not await answers(db)  # there is no file yet
    file.write_text("one\n")
    assert await answers(db)
    server.password("two")
    assert not await answers(db)  # the control: the password counts
    file.write_text("two\n")
    assert await answers(db)
    assert "two" not in repr([db.url, db.__dict__, str(db.url)])
    await db.close()


def test_the_job_engine_waits_for_the_right_password_and_takes_it(server: Server, tmp_path: Path):
    file = tmp_path / "password"
    file.write_text("one")
    server.password("two")
    db = Database(DatabaseSettings(url=server.url, password_file=str(file)))
    asked = threading.Event()
    password = db.password
    assert password is not None

    def counted() -> Secret:  # the second time it is asked, the first password has been refused
        if asked.is_set():
            file.write_text("two")
        asked.set()
        return password()

    closing = threading.Event()
    engine = waiting_engine(db.url.set(drivername="postgresql+psycopg"), closing, counted)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT 1")).scalar() == 1
    engine.dispose()
    file.write_text("wrong again")
    closing.set()
    asked.clear()
    with pytest.raises(EngineClosed):
        engine.connect()
