import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from fixtures.artifacts import onnx_columns, onnx_identity
from fixtures.installation import NO_NAMESPACES, Installation, free_port, installed
from modelkeep.contracts.signature import Dtype

_ALONE = {
    "test_kill": "how long nobody answers",
    "test_revoked": "how soon a key opens nothing any more",
    "test_stale_news": "how old news may get",
    "test_database_away": "how soon the database is missed, and found again",
    "test_rates_by_subject": "how many are let through in a time",
    "test_rates_over_installations": "how many are let through in a time",
    "test_shared_limits": "how many wait at once",
    "test_memory_budget": "how much memory is held under load",
    "test_every_estimator_served": "whether a compiled form is faster",
    "test_optimised_models": "whether a smaller form is faster",
}
"""Files whose tests have the machine to themselves, for the sake of what they look at."""

_BY_NUMBER = pytest.mark.skipif(platform.machine() != "x86_64", reason="calls are refused by their x86-64 numbers")


@pytest.hookimpl(tryfirst=True)  # before the command line chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs alone."""
    for item in items:
        if item.path.stem in _ALONE:
            item.add_marker(pytest.mark.alone)


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation that all walks share, over HTTP and gRPC; tests make models of their own in it."""
    port = str(free_port())
    with installed(tmp_path_factory.mktemp("house") / "data", MODELKEEP_SERVER__GRPC_PORT=port) as installation:
        yield installation


@pytest.fixture(scope="session")
def echoes(house: Installation, tmp_path_factory: pytest.TempPathFactory) -> dict[Dtype, str]:
    """A deployment in the shared installation for each datatype, which answers `y` = `x`, of shape [n, 2]."""
    folder = tmp_path_factory.mktemp("echoes")
    names = {}
    with house.client() as client:
        for dtype in Dtype:
            file = folder / f"{dtype.value.lower()}.onnx"
            file.write_bytes(onnx_identity(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype.numpy))))
            names[dtype] = f"echo-{dtype.value.lower()}"
            client.push(file, names[dtype])
    return names


@pytest.fixture(scope="session")
def columns(house: Installation, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A deployment in the shared installation with a column of each datatype, named in small letters: `int8` to `int8_out`."""
    file = tmp_path_factory.mktemp("columns") / "columns.onnx"
    file.write_bytes(
        onnx_columns({one.value.lower(): onnx.helper.np_dtype_to_tensor_dtype(np.dtype(one.numpy)) for one in Dtype})
    )
    with house.client() as client:
        client.push(file, "columns-of-all-kinds")
    return "columns-of-all-kinds"


@pytest.fixture(params=["", pytest.param(NO_NAMESPACES, marks=_BY_NUMBER)])
def house_of_folders(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """Where runners have their folders in memory, and where they are lent them."""
    house = Installation(tmp_path / "data")
    house.without_calls = request.param
    house.start()
    try:
        yield house.wait(90).set_up()
    finally:
        house.stop()


@pytest.fixture
def own_house(tmp_path: Path) -> Iterator[Installation]:
    """An installation for one test, which may break it."""
    with installed(tmp_path / "data") as installation:
        yield installation
