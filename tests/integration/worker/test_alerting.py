"""How many alerts fire, as the page of metrics is told."""

from collections.abc import Mapping

import pytest

from fixtures.control import ADMIN, TestClock
from fixtures.rollouts import fleet_of
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.traffic import Counted
from modelkeep.infra.db import DatabaseUnavailable
from modelkeep.worker.alerting import Firing


class Page:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[dict[str, int]] = []

    def alerts_firing(self, counts: Mapping[str, int]) -> None:
        self.told.append(dict(counts))


async def test_what_fires_is_counted_and_what_somebody_looks_at_is_not_until_it_fires_again(
    control: ControlPlane, clock: TestClock
):
    page = Page()
    firing, fleet = Firing(control.alerts, told=page), await fleet_of(control, clock)
    await firing.count()
    rollout = await fleet.start()
    await fleet.served(Counted(30, 8, 570, 2))
    await fleet.tick(rollout)
    await firing.count()
    (alert,) = await control.alerts.alerts(ADMIN, limit=5)
    await control.alerts.acknowledge(ADMIN, alert.id, minutes=10)
    await firing.count()
    clock.advance(minutes=10)
    await firing.count()
    assert [one["page"] for one in page.told] == [0, 1, 0, 1]
    assert page.told[0] == {"page": 0, "ticket": 0, "info": 0}


async def test_trouble_leaves_what_was_counted_last(control: ControlPlane, monkeypatch: pytest.MonkeyPatch):
    page = Page()
    firing = Firing(control.alerts, told=page)

    async def away() -> dict[str, int]:
        raise DatabaseUnavailable

    with monkeypatch.context() as patch, pytest.raises(DatabaseUnavailable):
        patch.setattr(control.alerts, "firing", away)
        await firing.count()
    assert page.told == []
    await firing.count()
    assert len(page.told) == 1
