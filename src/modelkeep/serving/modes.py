"""How the requests of a version share runs: what its measured cost suggests, unless its deployment says otherwise.

A run of n rows is taken to cost `fixed + n * marginal`, from the medians of one row and of many that validation measured.

    flat      the fixed part dominates (scikit-learn itself): waiting a little for others is paid back many times
    cheap     a run costs less than to hand it over (compiled trees): wait no longer than that takes, for who will be back
    compute   each row costs as much as the first (vision on a CPU): one request a run, spread over replicas
    off       one request a run, because the deployment says so, or because a row's answer depends on the rows beside it
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from modelkeep.contracts.snapshot import Batching

Mode = Literal["off", "cheap", "flat", "compute"]

_CHEAP_S = 0.0005
_LONGEST_WAIT_S = 0.002
_HANDING_OVER_S = 0.0005  # to a runner's process and back, both of them cold
_PAYS_BACK = 4.0
_MOSTLY_ROWS = 0.5


@dataclass(frozen=True)
class Cost:
    """Seconds of a run: `fixed`, and `marginal` for each row."""

    fixed: float = 0.0
    marginal: float = 0.0

    def of(self, rows: int) -> float:
        """Return the seconds that a run of so many rows is expected to take."""
        return self.fixed + rows * self.marginal


@dataclass(frozen=True)
class Plan:
    """How to form runs: rows at most, and how long to wait for more callers, in seconds. `together`: several requests a run."""

    mode: Mode
    max_rows: int
    max_wait_s: float
    together: bool

    @property
    def spread(self) -> bool:
        """Whether more replicas answer more requests: only where the runs, not the server, take the time."""
        return self.mode != "cheap"


def cost_from(measured_ms: Mapping[str, float]) -> Cost | None:
    """Return the cost curve through the measured points ({"1": 3.5, "64": 3.9}: rows, milliseconds); None without any."""
    points = sorted((int(rows), ms / 1000) for rows, ms in measured_ms.items())
    if not points:
        return None
    (few, first), (many, last) = points[0], points[-1]
    marginal = max(0.0, (last - first) / (many - few)) if many > few else 0.0
    return Cost(max(0.0, first - few * marginal), marginal)


def plan(batching: Batching, cost: Cost | None, max_rows: int, *, independent: bool = True) -> Plan:
    """Return how to form runs. `max_rows` is the installation's bound, which a deployment may only lower.

    Unless the rows are `independent` of each other, requests never share a run, whatever the deployment says.
    """
    mode: Mode = "off" if not independent else suggested(cost) if batching.mode == "auto" else batching.mode
    together = mode in {"cheap", "flat"}
    most = min(batching.max_rows or max_rows, max_rows)
    wait = 0.0
    if mode == "flat":
        wait = min(_LONGEST_WAIT_S, cost.of(1)) if cost else _LONGEST_WAIT_S
    elif mode == "cheap":
        wait = _HANDING_OVER_S
    if batching.max_wait_ms >= 0 and together:
        wait = batching.max_wait_ms / 1000
    target = batching.latency_target_ms / 1000
    if target and cost:
        # Half of the target: a request that has just missed a run waits for that one, too.
        if cost.marginal:
            most = int(max(1, min(most, (target / 2 - cost.fixed) / cost.marginal)))
        wait = max(0.0, min(wait, target - 2 * cost.of(most)))
    elif target:
        wait = min(wait, target / 2)
    return Plan(mode, most, wait, together)


def suggested(cost: Cost | None) -> Mode:
    """Return the mode for a cost curve; without one, the one that hardly waits."""
    if cost is None or cost.of(1) < _CHEAP_S:
        return "cheap"
    if cost.marginal >= _MOSTLY_ROWS * cost.of(1):
        return "compute"
    return "flat" if cost.fixed >= _PAYS_BACK * cost.marginal else "cheap"
