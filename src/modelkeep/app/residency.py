"""Which versions have runners when there is not memory for all: the most recently used ones. It starts and ends nothing itself.

A version that is to have runners is admitted, or made to wait until those that were used the longest ago have gone. Bytes are
memory that would be free again without a runner; times are seconds of a monotonic clock.
"""

from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar

import msgspec

from modelkeep.contracts.snapshot import KeepLoaded


class Budget(msgspec.Struct):
    """Memory for all runners together, and how long one is left alone after it was used: two shall not chase each other.

    The memory may change at any time.
    """

    limit_bytes: int
    min_idle_s: float


class Tenant(Protocol):
    """A version that servers want."""

    asleep: bool
    used: float

    @property
    def keep(self) -> KeepLoaded:
        """Whether it goes for others."""
        ...

    @property
    def idle_s(self) -> float:
        """After how long it goes by itself, if it is kept on demand."""
        ...

    @property
    def spare(self) -> bool:
        """Whether it takes only what nobody else wants, and goes first."""
        ...

    @property
    def expected_bytes(self) -> int:
        """What one more runner of it will hold."""
        ...


T = TypeVar("T", bound=Tenant)
T_contra = TypeVar("T_contra", bound=Tenant, contravariant=True)


class Holdings(Protocol[T_contra]):
    """What the runners hold."""

    def held_bytes(self) -> int:
        """Return what all runners hold, or are about to, those that are leaving too; 0 only where there are none."""
        ...

    def leaving_bytes(self) -> int:
        """Return how much of it is about to come free."""
        ...

    def bytes_of(self, tenant: T_contra, /) -> int:
        """Return what the tenant's runners hold; 0 while they start, for what is not there yet frees nothing."""
        ...


class Residency(Generic[T]):
    """Who waits for room, and who goes. `begin` has a tenant's runners started, `end` has them finish and go."""

    def __init__(
        self,
        budget: Budget,
        held: Holdings[T],
        begin: Callable[[T], None],
        end: Callable[[T], None],
        clock: Callable[[], float],
    ) -> None:
        self._budget = budget
        self._held = held
        self._begin = begin
        self._end = end
        self._clock = clock
        self._waiting: dict[int, T] = {}

    @property
    def limit_bytes(self) -> int:
        """What all may hold together."""
        return self._budget.limit_bytes

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return len(self._waiting)

    def fits(self, more_bytes: int) -> bool:
        """Whether there is room for so much more. The first one always has: it could not be smaller later."""
        held = self._held.held_bytes()
        return held == 0 or held + more_bytes <= self._budget.limit_bytes

    def settle(self, tenant: T, *, urgent: bool) -> None:
        """Take a tenant in: at once where it fits. Else an urgent one waits for others to go, and any other sleeps."""
        tenant.used = tenant.used or self._clock()
        if tenant.keep == "on_demand" and not urgent:
            tenant.asleep = True
        elif self.fits(tenant.expected_bytes):
            self._begin(tenant)
        elif (urgent or tenant.keep == "always") and not tenant.spare:
            self._waiting[id(tenant)] = tenant
        else:
            tenant.asleep = True

    def wake(self, tenant: T) -> None:
        """Somebody asks for it."""
        tenant.used = self._clock()
        if tenant.asleep:
            tenant.asleep = False
            self._waiting[id(tenant)] = tenant

    def forget(self, tenant: T) -> None:
        """It is wanted no more."""
        self._waiting.pop(id(tenant), None)

    def waits(self, tenant: T) -> bool:
        """Whether it waits for room."""
        return id(tenant) in self._waiting

    def look(self, tenants: Collection[T]) -> None:
        """Let in whom there is room for, first come first, and make room for the next; to be called when anything ends."""
        for tenant in sorted(self._waiting.values(), key=lambda one: one.spare):
            if not self.fits(tenant.expected_bytes):
                if tenant.spare:
                    continue  # nobody goes for it
                if self._never_fits(tenants, tenant.expected_bytes) or not self._make_room(tenants, tenant.expected_bytes):
                    continue  # one that there is no room to be made for is in nobody's way
                break
            del self._waiting[id(tenant)]
            self._begin(tenant)

    def relieve(self, tenants: Collection[T]) -> None:
        """Have those go that nobody has asked for long enough, and, where runners have grown over the budget, some more."""
        now = self._clock()
        for tenant in tenants:
            if tenant.keep != "on_demand" or tenant.asleep or now - tenant.used < tenant.idle_s:
                continue
            if self._held.bytes_of(tenant):  # not while it loads, or waits to be tried again
                self._rest(tenant)
        if self._held.held_bytes() > self._budget.limit_bytes:
            self._make_room(tenants, 0)

    def grows(self, tenant: T, tenants: Collection[T], *, first: bool) -> bool:
        """Whether one more runner of a tenant is started now: its `first` was let in. For any other, spare ones go."""
        if (first and not tenant.spare) or self.fits(tenant.expected_bytes):
            return True
        for other in () if tenant.spare else tenants:
            if other.spare and self._held.bytes_of(other) and not self.fits(tenant.expected_bytes - self._held.leaving_bytes()):
                self._rest(other)
        return False

    def _may_go(self, tenant: T, latest: float) -> bool:
        return tenant.spare or (tenant.keep != "always" and tenant.used <= latest)

    def _never_fits(self, tenants: Collection[T], more_bytes: int) -> bool:
        """Whether those who never go leave no room for it."""
        fixed = sum(self._held.bytes_of(one) for one in tenants if one.keep == "always")
        return fixed > 0 and fixed + more_bytes > self._budget.limit_bytes

    def _make_room(self, tenants: Collection[T], more_bytes: int) -> bool:
        """Have the least recently used go until so much more fits, or nobody is left who may; whether it will fit then."""
        staying = self._held.held_bytes() - self._held.leaving_bytes()
        missing = min(staying + more_bytes - self._budget.limit_bytes, staying)  # what is larger than all fits alone
        if missing <= 0:
            return True
        latest = self._clock() - self._budget.min_idle_s
        movable = [one for one in tenants if self._may_go(one, latest) and self._held.bytes_of(one)]
        if more_bytes and sum(map(self._held.bytes_of, movable)) < missing:
            return False  # to send some away would help nobody
        for tenant in sorted(movable, key=lambda one: (not one.spare, one.used)):
            missing -= self._held.bytes_of(tenant)
            self._rest(tenant)
            if missing <= 0:
                break
        return missing <= 0

    def _rest(self, tenant: T) -> None:
        tenant.asleep = True
        self._waiting.pop(id(tenant), None)
        self._end(tenant)
