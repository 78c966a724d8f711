"""The demo's scripts, importable as they are from their folder, and its models, built once a session."""

import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[3] / "examples" / "demo"
sys.path.insert(0, str(DEMO))


@pytest.fixture(scope="session")
def demo_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("demo-cache")


@pytest.fixture(scope="session")
def demo_models(demo_cache):
    from models import build

    return {model.name: model for model in build(demo_cache)}
