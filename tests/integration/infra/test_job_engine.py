"""The connections of the job engine, on a real PostgreSQL. What the engine does with jobs is tested with the worker."""

import threading
from typing import cast

import psycopg
import sqlalchemy as sa

from fixtures.databases import new_postgres_database
from modelkeep.infra.job_engine import end, waiting_engine


def test_no_connection_outlives_the_end_of_the_engine(postgres: str) -> None:
    url = sa.make_url(new_postgres_database(postgres)).set(drivername="postgresql+psycopg")
    engine = waiting_engine(url, threading.Event())
    with engine.connect() as held:
        with engine.connect() as soon_back:
            resting = cast("psycopg.Connection", soon_back.connection.driver_connection)
        driver = cast("psycopg.Connection", held.connection.driver_connection)
        end(engine)
        assert resting.closed
        assert held.scalar(sa.text("SELECT 1")) == 1, "whoever holds a connection may finish"
        assert not driver.closed
    assert driver.closed
