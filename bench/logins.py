"""Whether the time that a refused login takes tells if there is such a person.

    python bench/logins.py --samples 200

Logins are refused over a real database with passwords of real strength: of a name that there is not, of a person with a wrong
password, of one who is disabled, and of one who has none, in a random order. What is printed are medians in milliseconds, and
for each kind beside the first the chance (Mann-Whitney U) that a difference as large comes about where there is none.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from scipy.stats import mannwhitneyu

from modelkeep.app.control_plane import ControlPlane, control_plane
from modelkeep.contracts.access import Role
from modelkeep.contracts.actor import SYSTEM
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.snapshot import Limits
from modelkeep.control.sessions.errors import LoginRefused
from modelkeep.control.sessions.service import Origin
from modelkeep.control.users.rules import User
from modelkeep.infra.db import Database
from modelkeep.infra.migrations import migrate
from modelkeep.infra.passwords import Passwords
from modelkeep.infra.settings import DatabaseSettings
from modelkeep.infra.site_key import SiteKey

_PASSWORD, _WRONG = "correct horse battery staple", "another horse battery staple"
_HERE = Origin("192.0.2.1", "bench", "req_bench")
_KINDS = ("unknown", "wrong", "disabled", "none")


class _Days:
    """A clock that moves on by days, so that no login waits for those before."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


async def measured(folder: Path, samples: int) -> dict[str, list[float]]:
    """Return how long refused logins took, in milliseconds, by their kind."""
    db, clock, passwords = Database(DatabaseSettings(url=f"sqlite:///{folder}/bench.db")), _Days(), Passwords()
    await migrate(db)
    ring: Callable[[], None] = lambda: None  # noqa: E731 - nobody listens
    control = control_plane(
        db,
        ring_worker=ring,
        ring_courier=ring,
        limits=Limits(),
        clock=clock,
        passwords=passwords,
        site=SiteKey(bytes(32)),
    )
    await _people(control, passwords, clock)
    took: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    order = [kind for kind in _KINDS for _sample in range(samples)]
    random.Random(7).shuffle(order)
    for kind in ["unknown", *order]:
        clock.now += timedelta(days=2)
        began = time.perf_counter()
        with suppress(LoginRefused):
            await control.sessions.login(f"{kind}@example.org", _WRONG if kind == "wrong" else _PASSWORD, _HERE)
            raise AssertionError(f"{kind} came in")
        took[kind].append((time.perf_counter() - began) * 1000)
    took["unknown"].pop(0)  # the first pays for what is made once
    passwords.close()
    await db.close()
    return took


async def _people(control: ControlPlane, passwords: Passwords, clock: _Days) -> None:
    kept = await passwords.hashed(_PASSWORD)
    root = User(new_id("usr"), "root", clock(), email="root@example.org")
    await control.users.add(SYSTEM, root, kept, Role.ADMIN)  # who is left when another is disabled
    for kind in _KINDS[1:]:
        user = User(new_id("usr"), kind, clock(), email=f"{kind}@example.org")
        await control.users.add(SYSTEM, user, None if kind == "none" else kept, Role.VIEWER)
        if kind == "disabled":
            await control.users.set_active(SYSTEM, user.id, active=False)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=200, help="logins of each kind")
    samples = parser.parse_args().samples
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as folder:
        took = asyncio.run(measured(Path(folder), samples))
    for kind, times in took.items():
        chance = mannwhitneyu(took["unknown"], times).pvalue
        quarter, _median, three = statistics.quantiles(times, n=4)
        print(f"{kind:10} median {statistics.median(times):7.2f} ms  ({quarter:.2f} to {three:.2f})  p = {chance:.3f}")


if __name__ == "__main__":
    main()
