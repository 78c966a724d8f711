from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.installation import Installation, installed


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation that all walks share; tests make models of their own in it."""
    with installed(tmp_path_factory.mktemp("house") / "data") as installation:
        yield installation


@pytest.fixture
def own_house(tmp_path: Path) -> Iterator[Installation]:
    """An installation for one test, which may break it."""
    with installed(tmp_path / "data") as installation:
        yield installation
