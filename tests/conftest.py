"""Fixtures for all tests live in modules of their own; each part of the house adds its line."""

import os

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
    "fixtures.openid",
    "fixtures.slapd",
    "fixtures.object_store",
    "fixtures.stores",
    "fixtures.tenants",
    "fixtures.collecting",  # after those that it uses: only what is not imported yet has its asserts explained
    "fixtures.canaries",  # after those that it imports
    "pytester",
]
