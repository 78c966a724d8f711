"""Two processes promote, roll back, share out, upload, archive and name versions of one model at once, HISTORIES times.

Each is checked against a model that replays what was committed, and every answer against what is kept of it. Some hundred of
them share a database: each publishes all that was released before it, too, so that the thousandth would be about that alone.
"""

import os
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.databases import new_postgres_database
from fixtures.histories import Done, Process, Step, faults, history

HISTORIES = int(os.environ.get("HISTORIES", "40"))
EACH = 100
_numbers = count()

_RELEASES = st.fixed_dictionaries(
    {
        "do": st.sampled_from(["promote", "promote", "split", "rollback"]),
        "version": st.integers(1, 3),
        "seen": st.none() | st.none() | st.integers(1, 5),
    }
)
_OTHERS = st.fixed_dictionaries(
    {
        "do": st.sampled_from(["upload", "archive", "archive", "restore", "alias", "unalias"]),
        "version": st.integers(1, 3),
        "seen": st.none(),
    }
)
PROGRAMS = st.lists(_RELEASES | _RELEASES | _OTHERS, min_size=1, max_size=5)


@pytest.fixture(params=["sqlite", "postgresql"])
def processes(request: pytest.FixtureRequest, tmp_path: Path, migrated_sqlite: Path) -> Iterator[list[Process]]:
    """Two processes over one database of this kind."""
    if request.param == "sqlite":
        file = tmp_path / "modelkeep.db"
        shutil.copyfile(migrated_sqlite, file)
        url = f"sqlite:///{file}"
    else:
        template = request.getfixturevalue("migrated_postgres")
        url = new_postgres_database(request.getfixturevalue("postgres"), template)
    both = [Process(url, number) for number in (1, 2)]
    yield both
    for one in both:
        one.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, HISTORIES, EACH))
def test_whatever_two_processes_do_at_once_is_one_history(processes: list[Process], first: int) -> None:
    @settings(max_examples=min(EACH, HISTORIES - first), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(PROGRAMS, PROGRAMS)
    def check(one: list[Step], other: list[Step]) -> None:
        done, kept = history(processes, f"h{next(_numbers)}", [one, other])
        assert faults(done, kept) == []

    check()


def test_a_history_that_cannot_be_is_told(processes: list[Process]) -> None:
    def step(do: str, version: int = 2, seen: int | None = None) -> Step:
        return {"do": do, "version": version, "seen": seen}

    program = [step("promote"), step("split", 1), step("rollback"), step("alias"), step("archive"), step("promote", 1)]
    done, kept = history(processes, f"h{next(_numbers)}", [program, [step("promote", 1, 9)]])
    assert faults(done, kept) == []
    promoted = next(one for one in done if one.step == program[0])

    def told(**changes: object) -> list[str]:
        other = Done(**{**vars(promoted), **changes})
        return faults([other if one is promoted else one for one in done], kept)

    assert "not kept" in told(revision=99)[0]
    assert "nobody was told" in told(revision=None)[0]
    assert any("was told of" in one for one in told(step=step("promote", 1)))
    assert any("not seen" in one for one in told(step=step("promote", 2, 7)))
    assert any("older revision" in one for one in told(ended=0.0, revision=4))
    lost = {**kept, "revisions": [one for one in kept["revisions"] if one["revision"] != 2]}
    with pytest.raises(KeyError):
        faults(done, lost)
    archived = {"action": "version.archive", "version": kept["version"], "details": {"after": "archived"}}
    assert any("while it answered" in one for one in faults(done, {**kept, "trail": [*kept["trail"], archived]}))
    assert any("newest revision" in one for one in faults(done, {**kept, "version": 77}))
