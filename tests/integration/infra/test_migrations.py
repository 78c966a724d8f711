"""The schema: made from nothing, by whoever comes first, and equal to what the tables say."""

import asyncio
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import modelkeep.control.alerts.tables
import modelkeep.control.approvals.tables
import modelkeep.control.audit.tables
import modelkeep.control.deployments.tables
import modelkeep.control.feedback.tables
import modelkeep.control.links.tables
import modelkeep.control.models.tables
import modelkeep.control.replays.tables
import modelkeep.control.rollouts.tables
import modelkeep.control.schedules.tables
import modelkeep.control.sessions.tables
import modelkeep.control.shadows.tables
import modelkeep.control.users.tables
import modelkeep.infra.attempts
import modelkeep.infra.broadcast
import modelkeep.infra.jobs  # noqa: F401 - each registers its tables
from fixtures.control import ADMIN, SITE
from modelkeep.contracts.snapshot import DeploymentSettings
from modelkeep.control.audit.service import Audit
from modelkeep.control.deployments import store as deployments_store
from modelkeep.control.deployments.revisions import revision_of
from modelkeep.control.users import store as users_store
from modelkeep.infra import migrations
from modelkeep.infra.clock import utc_now
from modelkeep.infra.db import Database, metadata
from modelkeep.infra.migrations import HEAD, current, migrate, wait_until_current
from modelkeep.infra.settings import DatabaseSettings

_MIGRATE = """
import asyncio, sys
from modelkeep.infra.db import Database
from modelkeep.infra.migrations import migrate
from modelkeep.infra.settings import DatabaseSettings
async def main():
    db = Database(DatabaseSettings(url=sys.argv[1]))
    await migrate(db)
    await db.close()
asyncio.run(main())
"""


async def test_the_migrated_schema_is_what_the_tables_say(db: Database):
    async with db.read() as tx:
        differences = await tx.connection.run_sync(
            lambda connection: compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)
        )
    assert differences == []


async def test_the_tables_hold_more_than_nothing_so_that_the_comparison_means_something(db: Database):
    async with db.read() as tx:
        names = set(await tx.connection.run_sync(lambda connection: sa.inspect(connection).get_table_names()))
    assert set(metadata.tables) == names - {"alembic_version"}
    assert len(metadata.tables) > 10


def test_the_head_that_is_written_down_is_the_newest_step():
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


async def test_deployments_and_keys_from_before_settings_get_the_defaults(
    empty_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
):
    db = Database(empty_database)
    with monkeypatch.context() as before:
        before.setattr(migrations, "HEAD", "0001")
        await migrate(db)
    async with db.begin() as tx:
        for statement in (
            "INSERT INTO users VALUES ('usr_1', 'ada', '2026-01-01')",
            (
                "INSERT INTO api_keys (id, user_id, name, digest, scopes, created_at)"
                """ VALUES ('key_1', 'usr_1', 'old', 'd', '["admin"]', '2026-01-01')"""
            ),
            "INSERT INTO models VALUES ('mdl_1', 'iris', '', '2026-01-01', 'ada', NULL, NULL, NULL)",
            (
                "INSERT INTO deployments (id, name, model_id, model, revision, updated_at, updated_by)"
                " VALUES ('dep_1', 'iris', 'mdl_1', 'iris', 3, '2026-01-01', 'ada')"
            ),
        ):
            await tx.execute(sa.text(statement))
    await migrate(db)
    async with db.read() as tx:
        deployment = await deployments_store.deployment(tx, "iris")
        key = await users_store.key(tx, "key_1")
    assert deployment is not None
    assert (deployment.revision, deployment.settings) == (3, DeploymentSettings())
    assert key is not None
    assert (key.rate_per_minute, key.burst, key.rate_class, key.networks) == (None, None, None, ())
    await db.close()


async def test_what_deployments_are_when_revisions_begin_to_be_kept_is_their_first(
    empty_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
):
    db = Database(empty_database)
    with monkeypatch.context() as before:
        before.setattr(migrations, "HEAD", "0021")
        await migrate(db)
    traffic = '{"splits"\\:[{"version_id"\\:"ver_2","share"\\:5.0}]}'
    async with db.begin() as tx:
        for statement in (
            "INSERT INTO models (id, name, description, created_at, created_by) VALUES ('mdl_1', 'm', '', '2026-01-01', 'a')",
            (
                "INSERT INTO deployments (id, name, model_id, model, revision, updated_at, updated_by, settings, traffic)"
                " VALUES ('dep_1', 'iris', 'mdl_1', 'iris', 3, '2026-01-01 00:00:00', 'ada', '{\"concurrency\"\\:2}',"
                f" '{traffic}')"
            ),
        ):
            await tx.execute(sa.text(statement))
    await migrate(db)
    async with db.read() as tx:
        (kept,) = await deployments_store.history(tx, "dep_1")
        deployment = await deployments_store.deployment(tx, "iris")
    assert deployment is not None
    assert kept == revision_of(deployment, "present")
    assert (kept.revision, kept.settings.concurrency, kept.traffic.splits[0].share) == (3, 2, 5.0)
    await db.close()


async def test_audit_entries_from_before_the_chain_take_their_places_in_it(
    empty_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
):
    db = Database(empty_database)
    with monkeypatch.context() as before:
        before.setattr(migrations, "HEAD", "0010")
        await migrate(db)
    old = (
        "INSERT INTO audit_entries VALUES "
        "('aud_{0:03}', '2026-01-01 00:00:{1:02}', 'key_1', 'ada', 'model.create', 'mdl_{0}', 'r', '{2}')"
    )
    async with db.begin() as tx:
        for number in range(1, 520):
            await tx.execute(sa.text(old.format(number, number % 60, '{"name"\\:"m"}')))
    await migrate(db)
    audit = Audit(db, utc_now, nothing_else, SITE)
    report = await audit.verify()
    assert (report.whole, report.entries) == (True, 519)
    newest = (await audit.entries(limit=1))[0]
    assert (newest.target, newest.target_kind, newest.details, newest.seq) == ("mdl_519", "model", {"name": "m"}, 519)
    assert await audit.erase(ADMIN, {"key_1"}, "asked for") == 519
    assert (await audit.verify()).whole
    await db.close()


async def nothing_else(tx: object) -> dict[str, str]:
    return {}


async def test_processes_that_start_at_once_migrate_once(empty_database: DatabaseSettings):
    running = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", _MIGRATE, empty_database.url.reveal()) for _ in range(3)
    ]
    assert [await process.wait() for process in running] == [0, 0, 0]
    db = Database(empty_database)
    assert await current(db) == HEAD
    await db.close()


async def test_the_schema_is_made_once_however_many_ask_at_once(empty_database: DatabaseSettings):
    databases = [Database(empty_database) for _ in range(4)]
    await asyncio.gather(*[migrate(database) for database in databases])
    for database in databases:
        assert await current(database) == HEAD
        await database.close()


async def test_whoever_waits_goes_on_when_the_schema_is_there(empty_database: DatabaseSettings):
    waiting_db, migrating_db = Database(empty_database), Database(empty_database)
    waiting = asyncio.create_task(wait_until_current(waiting_db, poll_s=0.01))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.1)
    await migrate(migrating_db)
    await asyncio.wait_for(waiting, 5)
    await waiting_db.close()
    await migrating_db.close()


async def test_a_step_that_fails_leaves_nothing(empty_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch):
    db = Database(empty_database)

    def upgrade_then_fail(connection: sa.Connection) -> None:
        real_upgrade(connection)
        raise RuntimeError("the power went")

    real_upgrade = migrations._upgrade
    monkeypatch.setattr(migrations, "_upgrade", upgrade_then_fail)
    with pytest.raises(RuntimeError, match="power"):
        await migrate(db)
    assert await current(db) is None
    monkeypatch.undo()
    await migrate(db)
    assert await current(db) == HEAD
    await db.close()
