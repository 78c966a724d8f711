"""Answers kept, and given again to equal questions: found in memory, or shared with an equal request that is under way.

What is kept is what the model said to one call (its outputs), not what was written of it: each answer is written anew, in the
dialect and with the wishes of its request, has a prediction id of its own, and is in the history and the counters as any other,
with a run that took no time. A key (`serving/cache_key.py`) is of one caller, one deployment and one version, so none is ever
answered with another's; what a version said goes as soon as no route answers with it.

Of equal requests that are there at once one goes to the model, and the others wait for its answer within their own deadlines.
Where it fails or leaves, the next of them goes: nobody fails of what befell somebody else.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import structlog

from modelkeep.contracts.errors import InvalidInput
from modelkeep.contracts.prediction import CacheSeen
from modelkeep.contracts.snapshot import Caching, ServedDeployment, ServedVersion
from modelkeep.serving.cache_key import begun, key_of
from modelkeep.serving.cache_memory import Group, Holder, Memory, size_of
from modelkeep.serving.cache_seen import Lately, fitting
from modelkeep.serving.calls import Call, Run
from modelkeep.serving.modes import cost_from

if TYPE_CHECKING:
    from modelkeep.serving.codec import Tensors
    from modelkeep.serving.messages import Request
    from modelkeep.serving.meter import Meter
    from modelkeep.serving.pool import Served

log = structlog.get_logger(__name__)

SLOWER_S: Final = 0.001
"""What a row must cost for answers to be kept by themselves: many times what it takes to look one up."""
SHARED_S: Final = 0.002
"""What a row must cost for others to be asked for a kept answer: as much as that may take."""
_AT_ONCE: Final = 32  # answers to those who waited, in one turn of the event loop
_encode = msgspec.msgpack.Encoder(order="deterministic").encode

Pair = tuple[str, str]
"""A deployment by name, and a version by id."""


class Shared(Protocol):
    """Answers that servers share. Asking for one takes little time, whoever is away."""

    def get(self, key: bytes, told: "Callable[[Tensors | None, float], None]") -> bool:
        """Have `told` get the answer of a key and its age, or None, within two milliseconds; False where nobody is asked."""
        ...

    def put(self, key: bytes, outputs: "Tensors", ttl_s: float) -> None:
        """Share an answer, unless that takes long."""
        ...


class Cache:
    """What one server keeps of its answers. `most_waiting`: how many calls of a route may wait for another's answer."""

    def __init__(
        self,
        most_bytes: int,
        *,
        most_waiting: int = 1024,
        shared: "Shared | None" = None,
        clock: Callable[[], float] = time.monotonic,
        evicted: Callable[[str, int], None] = lambda _reason, _count: None,
    ) -> None:
        self.memory = Memory(most_bytes, clock=clock, evicted=evicted)
        self.clock = clock
        self.shared = shared
        self.most_waiting = most_waiting
        self.flights: dict[bytes, Flight] = {}
        self._groups: dict[Pair, Group] = {}
        self._holders: dict[str, Holder] = {}
        self._lately: dict[str, Lately] = {}

    def route(self, deployment: ServedDeployment, served: "Served", meter: "Meter") -> "RouteCache | None":
        """Return what keeps the answers of a route, None where they are not to be kept."""
        pair = deployment.name, served.version.id
        if self._why_not(deployment.settings.cache, served.version):
            self._retire(pair)
            return None
        group = self._groups.get(pair)
        if group is None:
            group = self._groups[pair] = Group(self._holders.setdefault(deployment.name, Holder()))
        return RouteCache(self, deployment, served, meter, group)

    def lately(self, deployment: str) -> Lately:
        """Return what counts a deployment's requests, of all its routes."""
        return self._lately.setdefault(deployment, Lately(self.clock()))

    def retain(self, pairs: Collection[Pair]) -> None:
        """Let go of what all others have said: nobody is answered with it any more."""
        for pair in [one for one in self._groups if one not in pairs]:
            self._retire(pair)
        names = {name for name, _version_id in pairs}
        for name in self._lately.keys() - names:
            del self._lately[name]
        for name in self._holders.keys() - names:
            del self._holders[name]

    def told(self, promoted: Mapping[str, tuple[Caching, ServedVersion]], room: int) -> dict[str, CacheSeen]:
        """Say what became of requests lately, by deployment, in so many bytes; `promoted` is what answers for each of them."""
        return fitting(((name, self._seen(name, *one)) for name, one in promoted.items()), room)

    def _seen(self, name: str, caching: Caching, version: ServedVersion) -> CacheSeen:
        why = self._why_not(caching, version)
        lately, holder = self._lately.get(name), self._holders.get(name)
        if why or lately is None:
            return CacheSeen(why)
        return lately.told(self.clock(), 0 if holder is None else holder.bytes)

    def _why_not(self, caching: Caching, version: ServedVersion) -> str:
        return why_not(caching, version) or ("" if self.memory.most_bytes else "no_room")

    def _retire(self, pair: Pair) -> None:
        group = self._groups.pop(pair, None)
        if group is not None:
            self.memory.retire(group)


def why_not(caching: Caching, version: ServedVersion) -> str:
    """Say why answers of a version are not kept, as `CacheSeen.why`: its deployment says so, or it would be wrong, or not pay.

    It is "" where they are.
    """
    if caching.mode != "auto":
        return "" if caching.mode == "on" else "off"
    cost = cost_from(version.cost_ms)
    if not version.repeatable or cost is None:
        return "unsure"
    return "" if cost.of(1) >= SLOWER_S else "fast"


class RouteCache:
    """Keeps the answers of one route."""

    __slots__ = (
        *("_common", "_doubts", "_group", "_lately", "_meter", "_names", "_place", "_served"),
        *("cache", "shared", "ttl_s", "waiting"),
    )

    def __init__(self, cache: Cache, deployment: ServedDeployment, served: "Served", meter: "Meter", group: Group) -> None:
        self.cache = cache
        self.waiting = 0
        self._meter = meter
        self._lately = cache.lately(deployment.name)
        self._served = served
        self._group = group
        caching = deployment.settings.cache
        self.ttl_s = caching.ttl_s
        self._place = b"all" if caching.share == "deployment" else b""
        version = served.version
        cost = cost_from(version.cost_ms)
        self.shared = cache.shared if cost is not None and cost.of(1) >= SHARED_S else None
        self._names = (deployment.name.encode(), version.id.encode(), _encode(version.spec))
        self._doubts = served.mismatches
        self._common = begun(*self._names, b"%d" % self._doubts)

    def ask(self, call: Call, request: "Request") -> "Asked | None":
        """Return what a call asks of the cache, which takes all of its rows; None where it has nothing to do with it."""
        served = self._served
        if served.golden.differs:
            return None
        if served.mismatches != self._doubts:  # what was said before may have been wrong
            self._doubts = served.mismatches
            self._common = begun(*self._names, b"%d" % self._doubts)
        control = request.headers.get(b"cache-control")
        wish = NO_WISH if control is None else wish_in(control)
        if not wish.keep:
            return Asked(self, b"", wish, self._doubts)
        try:
            tensors = call.tensors()
        except InvalidInput:  # as the run will say
            return None
        key = key_of(self._common, self._place or b"of " + call.owner.encode(), tensors)
        return None if key is None else Asked(self, key, wish, self._doubts)

    def count(self, result: str, took_s: float = 0.0) -> None:
        """Count what became of one request, and the seconds that the look-up took."""
        self._meter.cached(result, took_s)
        self._lately.count(result)

    def submit(self, call: Call, request: "Request") -> None:
        """Answer a call with what is kept, have it wait for an equal one, or queue it; raises as a batcher's `submit`."""
        since = time.monotonic()
        asked = call.asked or self.ask(call, request)
        if asked is None:
            self.count("bypassed")
            call.route.served.batcher.submit(call)
            return
        call.asked = asked
        if not asked.wish.look:
            self.count("bypassed")
            self._begin(call, asked)
            return
        found = self.cache.memory.get(asked.key, self.ttl_s)
        asked.since, asked.took_s = since, time.monotonic() - since
        if found is not None:
            age_s = self.cache.clock() - found.at
            if age_s <= asked.wish.max_age_s:
                self.count("hit")
                answer(call, asked, Run(found.outputs, 0.0), age_s)
                return
        flight = self.cache.flights.get(asked.key)
        if flight is not None and self.waiting < self.cache.most_waiting:
            flight.join(call, asked)
            return
        self._begin(call, asked)

    def _begin(self, call: Call, asked: "Asked") -> None:
        """Have the model asked; whoever asks the same meanwhile may wait for it."""
        asked.runs = bool(asked.key)
        if asked.runs and asked.key not in self.cache.flights:
            asked.flight = flight = self.cache.flights[asked.key] = Flight(self, asked.key, call)
            if asked.wish.look and flight.look_further(call, asked):
                return
        if asked.wish.look:
            self.count("miss", asked.took_s)
        call.route.served.batcher.submit(call)

    def kept(self, call: Call, asked: "Asked") -> "Tensors | None":
        """Keep what the model has said to a call, as far as there is room; None where it said nothing that can be trusted."""
        since = time.monotonic()
        share, served = call.share, self._served
        if share is None or served.mismatches != asked.doubts or served.golden.differs:
            return None
        outputs = {name: share.tensor(name) for name in share.names}
        size = size_of(outputs)
        if size <= self.cache.memory.most_each and not self._group.retired:
            outputs = {name: array.copy() for name, array in outputs.items()}  # of a run that others may share
            self.cache.memory.put(asked.key, outputs, size, self._group)
            if self.shared is not None:
                self.shared.put(asked.key, outputs, self.ttl_s)
            self._meter.kept(time.monotonic() - since)
        return outputs

    def shared_by_others(self, call: Call, asked: "Asked", outputs: "Tensors", age_s: float) -> bool:
        """Keep what another server's model has said to an equal call; False where it is too old, or no answer to this one."""
        if age_s >= min(self.ttl_s, asked.wish.max_age_s):
            return False
        if any(array.shape[:1] != (call.rows,) for array in outputs.values()) or not outputs:
            return False
        self.cache.memory.put(asked.key, outputs, size_of(outputs), self._group, age_s)
        return True


class Wish(msgspec.Struct, frozen=True):
    """What a request's `Cache-Control` says: to `look` for a kept answer, of this age at most, and to `keep` its own."""

    look: bool = True
    keep: bool = True
    max_age_s: float = float("inf")


NO_WISH: Final = Wish()


def wish_in(control: bytes) -> Wish:
    """Read `Cache-Control: no-cache, no-store, max-age=60`; what is not understood counts for nothing."""
    words = [word.strip().lower() for word in control.split(b",")]
    ages = [age for name, _equals, age in (word.partition(b"=") for word in words) if name == b"max-age"]
    oldest = min((int(age[:9]) for age in ages if age.isdigit()), default=None)
    keep = b"no-store" not in words
    look = keep and b"no-cache" not in words and oldest != 0
    return Wish(look, keep, float("inf") if oldest is None else float(oldest))


class Asked:
    """What one call asks of the cache, and what came of it.

    `runs`: its own answer will come from the model. `doubts`: how often the version's runners had been found wrong by then.
    `took_s`: how long it was looked for, `since` a moment of the monotonic clock.
    """

    __slots__ = ("_cache", "_over", "age_s", "doubts", "flight", "hit", "key", "runs", "since", "took_s", "wish")

    def __init__(self, cache: RouteCache, key: bytes, wish: Wish, doubts: int) -> None:
        self._cache = cache
        self._over = False
        self.key = key
        self.wish = wish
        self.doubts = doubts
        self.flight: Flight | None = None
        self.runs = False
        self.hit = False
        self.age_s = 0.0
        self.since = 0.0
        self.took_s = 0.0

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What the answer says of it."""
        return ((b"x-cache", b"hit"), (b"age", b"%d" % self.age_s)) if self.hit else ((b"x-cache", b"miss"),)

    def end(self, call: Call) -> None:
        """The call has been answered or refused, or its caller has left; said twice, it is no fault."""
        if self._over:
            return
        self._over = True
        if self.flight is not None:
            self.flight.ended(call, self)
        elif self.runs:
            self._cache.kept(call, self)


class Flight:
    """Equal calls that are there at once: the first is on its way to the model, and the others wait for its answer.

    While one waits, its version's queue counts it among those that will come, so that no runner is let go of meanwhile.
    """

    __slots__ = ("_cache", "_key", "_loop", "_waiting", "leader")

    def __init__(self, cache: RouteCache, key: bytes, leader: Call) -> None:
        self._cache = cache
        self._key = key
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Call, Asked] = {}
        self.leader: Call | None = leader

    def look_further(self, call: Call, asked: Asked) -> bool:
        """Ask first whether another server has kept an answer; False where nobody is asked."""
        shared = self._cache.shared
        if shared is None or not shared.get(self._key, partial(self._told, call, asked)):
            return False
        call.route.served.batcher.reading += 1
        return True

    def _told(self, call: Call, asked: Asked, outputs: "Tensors | None", age_s: float) -> None:
        """Another server has kept an answer, or none that could be had in time."""
        batcher = call.route.served.batcher
        batcher.reading -= 1
        asked.took_s = time.monotonic() - asked.since
        if call.done or call is not self.leader:
            return
        if outputs is not None and self._cache.shared_by_others(call, asked, outputs, age_s):
            self._cache.count("hit")
            asked.flight, asked.runs = None, False
            self._land(outputs, age_s)
            answer(call, asked, Run(outputs, 0.0), age_s)
            return
        self._cache.count("miss", asked.took_s)
        try:
            batcher.submit(call)
        except Exception as refusal:  # noqa: BLE001 - told, and logged where it is our fault
            call.fail(refusal)

    def join(self, call: Call, asked: Asked) -> None:
        """Wait with the others."""
        asked.flight = self
        self._waiting[call] = asked
        self._cache.waiting += 1
        call.route.served.batcher.reading += 1

    def ended(self, call: Call, asked: Asked) -> None:
        """A call of these has its answer, or none."""
        if call is not self.leader:
            self._leave(call)
            return
        outputs = self._cache.kept(call, asked)
        if outputs is not None:
            self._land(outputs)
        elif self._waiting:
            self.leader = None
            self._loop.call_soon(self._lead)  # whoever tells us may be in the middle of a queue's work
        else:
            self._forget()

    def _leave(self, call: Call) -> bool:
        """Let a call wait no longer; whether it did."""
        if self._waiting.pop(call, None) is None:
            return False
        self._cache.waiting -= 1
        call.route.served.batcher.reading -= 1
        return True

    def _forget(self) -> None:
        if self._cache.cache.flights.get(self._key) is self:
            del self._cache.cache.flights[self._key]

    def _lead(self) -> None:
        """Send the next of those who wait to the model."""
        for call, asked in list(self._waiting.items()):
            self._leave(call)
            if call.done:
                continue
            self.leader = call
            asked.runs = True
            self._cache.count("miss", asked.took_s)
            try:
                call.route.served.batcher.submit(call)
            except Exception as refusal:  # noqa: BLE001 - told, and logged where it is our fault; when it has, the next one goes
                call.fail(refusal)
            return
        self._forget()

    def _land(self, outputs: "Tensors", age_s: float = 0.0) -> None:
        """Give everybody who waits what the model said."""
        self._forget()
        self.leader = None
        if self._waiting:
            self._loop.call_soon(self._answer, Run(outputs, 0.0), age_s)

    def _answer(self, run: Run, age_s: float) -> None:
        for call, asked in list(self._waiting.items())[:_AT_ONCE]:
            self._leave(call)
            if not call.done:
                self._cache.count("shared")
                answer(call, asked, run, age_s)
        if self._waiting:
            self._loop.call_soon(self._answer, run, age_s)


def answer(call: Call, asked: Asked, run: Run, age_s: float) -> None:
    """Answer a call with what the model said `age_s` seconds ago to an equal one."""
    asked.hit = True
    asked.age_s = run.age_s = max(0.0, age_s)
    call.route.served.batcher.answer(call, run)
