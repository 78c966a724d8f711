"""Where things are: what is committed, and what is made."""

from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
ROOT = BENCH.parent
PEERS = BENCH / "peers"
CACHE = ROOT / ".cache" / "bench"
RESULTS = CACHE / "results"
ARTIFACTS = CACHE / "artifacts"
