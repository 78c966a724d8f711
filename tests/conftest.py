"""Fixtures for all tests live in modules of their own; each part of the house adds its line."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.putenv("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime starts an uploader on import; tests phone nobody either

# gRPC, where a test before has used it, would look after its threads in each fork, and has ended one that was to become a child
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# a busy machine is no counterexample
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

pytest_plugins = [
    "fixtures.databases",
    "fixtures.control",
    "fixtures.control_api",
    "fixtures.runners",
    "fixtures.inspection",
    "fixtures.logs",
    "fixtures.people",
    "fixtures.chromium",
    "fixtures.console",  # for what its asserts say
    "fixtures.openid",
    "fixtures.slapd",
    "fixtures.object_store",
    "fixtures.stores",
    "fixtures.tenants",
    "fixtures.collecting",  # after those that it uses: only what is not imported yet has its asserts explained
    "fixtures.canaries",  # after those that it imports
    "pytester",
]

_LONG = (
    *("integration/idempotency/test_writes", "integration/idempotency/test_kill", "integration/idempotency/test_approvals"),
    *("integration/api/test_who_may", "integration/control/test_concurrent_histories", "integration/control/test_crash_points"),
    *("integration/control/test_approvals", "integration/control/test_releases", "integration/control/test_approval_orders"),
    *("integration/control/test_trash_orders", "integration/control/test_life_cycle", "integration/control/test_links"),
    *("unit/serving/test_access_faults", "unit/serving/test_large"),
    *("e2e/test_description", "e2e/test_upgrade", "e2e/test_replay", "e2e/test_triton_grpc", "e2e/test_walks"),
)
"""Files that take long: begun first, so that of several processes none is left with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the longest files begin; all others keep their order."""
    tests = Path(__file__).parent
    rank = {tests / f"{name}.py": at for at, name in enumerate(_LONG)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))
