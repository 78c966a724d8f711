"""Many rollouts one after another in one installation, under load: how many requests it takes until what is worse is out.

CANARIES in all (`make soak-releases`: 40), of a model that fails and of one that answers with NaN. A request is bad by its own
input, which callers draw by seeded dice, for whom it is in a version's own range. So the promoted version is bad in 1 % of its
requests, the candidate in 20 %, of 10 % of the requests: found after about 250 requests in the median.
"""

import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from fixtures.askers import OK, Asked, Askers, askers
from fixtures.failing_ranges import FAILS, NO_NUMBER, SAMPLE, archive
from fixtures.installation import Installation, eventually, installed
from fixtures.odds import asked_until_worse, at_least
from modelkeep.client import Client
from modelkeep.client.rollouts import Rollout

pytestmark = pytest.mark.timeout(3600)

CANARIES = int(os.environ.get("CANARIES", "2"))
SEED = int(os.environ.get("CANARY_SEED", "20261123"))
CONNECTIONS = 4
SHARE, RATES, ALPHA = 0.1, (0.20, 0.01), 0.01
SIGNALS = ("errors", "poor")
"""What is worse is judged by these alone: what is slow is up to the machine, and would be out for another reason."""
SIMULATED = 20_000
SURPRISE = 0.001
"""What is less probable than this where all is as it should be is a fault: once in a thousand campaigns it is none."""

KINDS = {"fails": FAILS, "no_number": NO_NUMBER}
RANGES = {1: (0.0, 0.01), 2: (0.01, 0.21), 3: (0.01, 0.02)}
"""For which inputs each version is bad: no input is for two of those that are compared, so a failure tells whose it was."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with models of both kinds: version 2 is worse than version 1, version 3 is as often bad."""
    folder = tmp_path_factory.mktemp("canaries")
    with installed(folder / "data", patience_s=120) as place:
        with place.client() as client:
            for name, does in KINDS.items():
                for number, (low, high) in RANGES.items():
                    file = folder / f"{name}-{number}.zip"
                    file.write_bytes(archive(low, high, does))
                    client.push(file, name, format="python", sample=SAMPLE)
                client.promote(name, 1)
                client.wait_serving(name, 1)
        yield place


def asked_by_many(house: Installation, name: str) -> AbstractContextManager[Askers]:
    return askers(f"{house.url}/api/v1/predict/{name}", house.key, seed=SEED, connections=CONNECTIONS)


def shared_out() -> list[tuple[str, int]]:
    """How many canaries each kind has."""
    return [(name, CANARIES // len(KINDS) + (at < CANARIES % len(KINDS))) for at, name in enumerate(KINDS)]


def over(client: Client, rollout: Rollout) -> Rollout:
    eventually(lambda: client.rollout(rollout.id).over, f"the end of {rollout.id}", 300)
    return client.rollout(rollout.id)


def is_bad(one: Asked, version: int) -> bool:
    """Whether this version answered what it is bad for; a failure does not say who it was."""
    low, high = RANGES[version]
    return low <= one.x < high and (one.version == version or one.status != OK)


@dataclass(frozen=True)
class Found:
    """A canary that was taken back: by which signal, counted requests, those of the candidate, and what callers saw of it.

    `seen`: the candidate's answers; `late`: those to requests that were sent after the answer that had it called back.
    """

    signal: str
    requests: int
    counted: int
    seen: int
    late: int


def canary(house: Installation, client: Client, name: str, found: Askers) -> Found:
    """Roll version 2 out until it is taken back."""
    began = time.monotonic()
    rollout = over(client, client.start_rollout(name, 2, steps=[f"{100 * SHARE:g}:10m"], signals=SIGNALS, alpha=ALPHA))
    answers = found.between(began, time.monotonic())
    assert (rollout.state, client.deployment(name).version) == ("rolled_back", 1), rollout.raw
    numbers = rollout.raw["begun"][-1]["numbers"]
    signal = rollout.reason.partition(":")[0]
    counted = numbers[signal]
    theirs = [one for one in answers if one.version == 2 or is_bad(one, 2)]
    called_back = [one for one in theirs if is_bad(one, 2)][counted["bad"] - 1].answered
    late = sum(one.sent > called_back for one in theirs)
    return Found(signal, counted["requests"] + counted["others"], counted["requests"], len(theirs), late)


def test_what_is_worse_is_out_after_as_many_requests_as_chance_makes_it(house: Installation) -> None:
    """The counts of all canaries, by rank, against those of a simulation: one server, an equal part of alpha for each signal.

    `SURPRISE` is the tolerance: it is exact for any number of canaries, and one that is too eager fails as well as a late one.
    """
    made: list[Found] = []
    with house.client() as client:
        for name, times in shared_out():
            with asked_by_many(house, name) as found:
                made += [canary(house, client, name, found) for _ in range(times)]
            assert found.lost == []
    chance = np.random.default_rng(SEED)
    simulated = asked_until_worse(chance, runs=SIMULATED, share=SHARE, rates=RATES, alpha=ALPHA / len(SIGNALS))
    asked, theirs = [one.requests for one in made], [one.counted for one in made]
    rank = mannwhitneyu(asked, simulated).pvalue
    print(f"\n{len(made)} canaries by {dict(Counter(one.signal for one in made))}: {told(asked)}; simulated: {told(simulated)}")
    print(f"by rank against the simulation: p = {rank:.3f}; of the candidate: {told(theirs)}")
    print(f"answers of candidates beyond what was counted: {sum(one.seen - one.counted for one in made)}, under way at the end")
    assert rank > SURPRISE
    assert [one for one in made if one.late] == [], "nothing goes to a version after the answer that called it back"
    assert [one for one in made if not 0 <= one.seen - one.counted < CONNECTIONS] == [], "all that it answered was counted"


def test_what_is_as_good_takes_over(house: Installation) -> None:
    """One in a hundred may be taken back: more than chance makes of that is a fault."""
    states: Counter[str] = Counter()
    with house.client() as client:
        for name, times in shared_out():
            with asked_by_many(house, name) as found:
                for _ in range(times):
                    version = 1 if client.deployment(name).version != 1 else 3
                    rollout = over(client, client.start_rollout(name, version, steps=["20:1s", "50:1s"], least=50, alpha=ALPHA))
                    states[rollout.state] += 1
                    print(f"\n{name}: {rollout.state} {rollout.reason}", end="")
                    answering = version if rollout.state == "promoted" else 4 - version
                    assert client.deployment(name).version == answering
                    assert client.deployment(name).raw["traffic"]["split"] == {}
            assert found.lost == []
    print(f"\nequal versions: {dict(states)}")
    assert set(states) <= {"promoted", "rolled_back"}
    assert at_least(states["rolled_back"], CANARIES, ALPHA) > SURPRISE


def told(counts: Sequence[int] | NDArray[np.int64]) -> str:
    """Return the median and the 90th percentile."""
    return f"median {statistics.median(counts):g}, 90 % {np.percentile(counts, 90):.0f}"
