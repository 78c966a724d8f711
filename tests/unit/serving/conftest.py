"""A serving plane in one piece, with runners that are coroutines at the far end of real sockets."""

import asyncio
import contextlib
import hashlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from hypothesis import settings
from msgspec.structs import replace
from uvicorn.server import ServerState

from fixtures.described import async_check
from fixtures.large import Watched
from fixtures.planes import Plane
from fixtures.standings import through
from modelkeep.contracts.access import Scope
from modelkeep.contracts.prediction import PredictionRecord
from modelkeep.contracts.runner import ModelFacts
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import (
    DeploymentSettings,
    RunnerSpec,
    ServedDeployment,
    ServedKey,
    ServedVersion,
    Snapshot,
)
from modelkeep.contracts.snapshot import Limits as RunnerLimits
from modelkeep.contracts.traffic import Traffic, Trial
from modelkeep.infra.rates import OwnRates
from modelkeep.sandbox import control, frames
from modelkeep.sandbox.wire import Inbox
from modelkeep.serving.cache import Cache
from modelkeep.serving.codec import Tensors
from modelkeep.serving.engine import Engine
from modelkeep.serving.forward import Forward
from modelkeep.serving.http import Door
from modelkeep.serving.keys import Keys
from modelkeep.serving.limits import Limits
from modelkeep.serving.metrics import Metrics
from modelkeep.serving.pool import Pool
from modelkeep.serving.protocol import HttpProtocol
from modelkeep.serving.recorder import Recorder
from modelkeep.serving.router import Router
from modelkeep.serving.settings import ServingSettings
from modelkeep.serving.shadows import Shadows

# A busy machine is no fault of the code: examples are not timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

NUMBERS = Signature(
    (TensorSpec("input", Dtype.FP64, (-1, 2), columns=("a", "b")),),
    (TensorSpec("sum", Dtype.FP64, (-1,)), TensorSpec("echo", Dtype.FP64, (-1, 2))),
)


class Refused(Exception):
    """A fake model's refusal: the code and the words of a `RunFailed`."""


Compute = Callable[[Tensors], Tensors]


def sums(inputs: Tensors) -> Tensors:
    """A model that adds the columns, and gives its input back."""
    (array,) = inputs.values()
    return {"sum": array.sum(axis=1), "echo": array}


class Kept:
    """A spool in a list."""

    def __init__(self, records: list[PredictionRecord]) -> None:
        self._records = records

    def append(self, records: Sequence[PredictionRecord]) -> None:
        """Append a batch at once."""
        self._records.extend(records)


class House:
    """Router, pool, keys, door, and a client that talks to the door."""

    def __init__(
        self,
        run_dir: Path,
        options: ServingSettings,
        *,
        max_payload: int = 1 << 18,
        stand_in: str = "",
        large: Watched | None = None,
    ) -> None:
        self.sent: list[control.Message] = []
        self.keys = Keys(max_staleness_s=options.max_staleness_s)
        self._changed = asyncio.Event()

        def pool(settle: Callable[[], None]) -> Pool:
            def changed() -> None:
                settle()
                self._changed.set()

            return Pool(options, self.sent.append, changed, self.recorder, self.large)

        self.large = large or Watched()
        self.metrics = Metrics("9.9", run_dir / "metrics")
        self.records: list[PredictionRecord] = []
        self.recorder = Recorder(Kept(self.records), max_payload=max_payload)
        self.cache = Cache(options.cache_mb << 20, most_waiting=options.max_queue, evicted=self.metrics.evicted)
        self.metrics.cache = lambda: (self.cache.memory.bytes, len(self.cache.memory))
        self.shadows = Shadows(run_dir / "shadows", "here", self.metrics.shadowed)
        self.router = Router(pool, self.metrics.meter, self.cache, self.shadows)
        self.engine = Engine(options, self.router, Limits(OwnRates()), self.recorder, self.large)
        self.metrics.watch(self.router, self.keys)
        self._forward = Forward(run_dir / "api.sock")
        self.door = Door(
            settings=options,
            router=self.router,
            engine=self.engine,
            keys=self.keys,
            metrics=self.metrics,
            forward=self._forward,
            version="9.9",
            stand_in=hashlib.sha256(stand_in.encode()).digest() if stand_in else b"",
        )
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.door),  # type: ignore[arg-type]
            base_url="http://door",
            headers={"x-api-key": "all"},
            event_hooks={"response": [async_check(options.predict_route, options.health_route)]},
        )
        self.versions: dict[str, ServedVersion] = {}
        self.deployments: dict[str, str] = {}
        self.settings: dict[str, DeploymentSettings] = {}
        self.aliases: dict[str, dict[str, str]] = {}
        self.traffic: dict[str, Traffic] = {}
        self.trials: dict[str, Trial] = {}
        self._runners: set[asyncio.Task[None]] = set()
        self._number = 0
        self.gates: dict[str, asyncio.Event] = {}
        self.keys.heard(time.time())
        self._served_keys = tuple(
            ServedKey(name, hashlib.sha256(name.encode()).digest(), name, through(scope, user=f"usr_{name}"))
            for name, scope in {
                "all": Scope.ADMIN,
                "predict": Scope.PREDICT,
                "read": Scope.MODELS_READ,
                "metrics": Scope.METRICS_READ,
            }.items()
        )
        self.keys.replace(self._served_keys)

    def publish(self) -> None:
        """Give the router the present state as news."""
        self._number += 1
        deployments = tuple(
            ServedDeployment(
                name,
                version,
                1,
                self.settings.get(name, DeploymentSettings()),
                self.aliases.get(name, {}),
                traffic=self.traffic.get(name, Traffic()),
                trial=self.trials.get(name),
            )
            for name, version in self.deployments.items()
        )
        self.router.apply(
            Snapshot(self._number, time.time(), deployments, tuple(self.versions.values()), keys=self._served_keys)
        )

    async def serve(
        self,
        name: str,
        signature: Signature = NUMBERS,
        compute: Compute = sums,
        *,
        number: int = 1,
        labels: tuple[str, ...] = (),
        scores: str = "",
        limits: RunnerLimits | None = None,
        wait: bool = True,
    ) -> str:
        """Deploy a version whose model is `compute`, and wait until it answers. Returns the version's id."""
        version_id = f"{name}-{number}"
        spec = RunnerSpec(version_id, "d" * 64, 1, "onnx", "fake", signature, limits=limits or RunnerLimits())
        self.versions[version_id] = ServedVersion(
            version_id, name, number, spec, signature, framework="fake", labels=labels, scores=scores
        )
        self.deployments[name] = version_id
        self.publish()
        if wait:
            await self.connect(version_id, compute)
        return version_id

    async def alias(self, name: str, alias: str, number: int, compute: Compute = sums, *, wait: bool = True) -> str:
        """Have an alias point to a version beside the one that `serve` deployed, and wait until it answers."""
        version_id = f"{name}-{number}"
        if version_id not in self.versions:
            beside = self.versions[self.deployments[name]]
            spec = replace(beside.spec, version_id=version_id)
            self.versions[version_id] = replace(beside, id=version_id, number=number, spec=spec)
        self.aliases[name] = {**self.aliases.get(name, {}), alias: version_id}
        self.publish()
        served = self.router.pool.get(version_id)
        assert served is not None
        if wait and not served.ready:
            await self.connect(version_id, compute)
        return version_id

    async def connect(self, version_id: str, compute: Compute = sums) -> None:
        """Bring a runner of this version up, named as the version, as the supervisor does."""
        near, far = socket.socketpair()
        self.router.pool.take(control.Connected(version_id, os.getpid(), version_id), [near.detach()])
        task = asyncio.create_task(self._run(far, version_id, compute))
        self._runners.add(task)
        served = self.router.pool.get(version_id)
        assert served is not None
        async with asyncio.timeout(10):
            while not served.ready:
                await self.change()

    async def change(self) -> None:
        """Wait until the pool says that a runner came or went."""
        self._changed.clear()
        await self._changed.wait()

    async def _run(self, sock: socket.socket, version_id: str, compute: Compute) -> None:
        """The far end: answer runs until the socket closes."""
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        with sock:
            facts = ModelFacts(self.versions[version_id.partition("~")[0]].signature, "fake", "1")
            await loop.sock_sendall(sock, b"".join(frames.encode(frames.Loaded(facts, 0.1, 1, 2))))
            inbox = Inbox(sock)
            while (received := await _received(inbox, sock)) is not None:
                for message, tensors in received:
                    assert isinstance(message, frames.Run)
                    if version_id in self.gates:
                        await self.gates[version_id].wait()
                    try:
                        answer, outputs = frames.Result(message.id, 0.01), compute(tensors)
                    except Refused as refused:
                        answer, outputs = frames.RunFailed(message.id, *refused.args), {}
                    await loop.sock_sendall(sock, b"".join(frames.encode(answer, outputs)))

    async def close(self) -> None:
        """End the runners and let the door's ends of their sockets close."""
        await self.client.aclose()
        for task in self._runners:
            task.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)
        while any(served.ready for served in self.router.pool.all()):
            await self.change()
        for _ in range(5):
            await asyncio.sleep(0)
        os.close(self._forward._folder)


async def _received(inbox: Inbox, sock: socket.socket) -> list[tuple[frames.Message, Tensors]] | None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(sock.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock.fileno())
    return inbox.read()


@pytest.fixture
async def open_house(tmp_path: Path) -> AsyncIterator[Callable[..., House]]:
    """Make serving planes with settings of one's own."""
    async with contextlib.AsyncExitStack() as stack:

        def make(*, stand_in: str = "", large: Watched | None = None, **options: object) -> House:
            house = House(tmp_path, ServingSettings(**options), stand_in=stand_in, large=large)  # type: ignore[arg-type]
            stack.push_async_callback(house.close)
            return house

        yield make


@pytest.fixture
async def house(open_house: Callable[..., House]) -> House:
    """A serving plane with the default settings."""
    return open_house()


@pytest.fixture(scope="session")
def refuse() -> type[Refused]:
    """What a fake model raises to fail a run."""
    return Refused


@pytest.fixture
def make_version() -> Callable[..., ServedVersion]:
    """Make versions by id."""

    def make(version_id: str, number: int = 1, signature: Signature = NUMBERS) -> ServedVersion:
        spec = RunnerSpec(version_id, "d" * 64, 1, "onnx", "fake", signature)
        return ServedVersion(version_id, version_id.partition("-")[0], number, spec, signature)

    return make


@pytest.fixture
def ones() -> Compute:
    """A model that answers 1 for each row of anything."""
    return lambda inputs: {"y": np.ones(len(next(iter(inputs.values()))))}


class Images:
    """A picture model whose scores are the number of each letter a to d in the bytes."""

    signature = Signature((TensorSpec("image", Dtype.BYTES, (-1,)),), (TensorSpec("scores", Dtype.FP32, (-1, 4)),), image=True)

    @staticmethod
    def compute(inputs: Tensors) -> Tensors:
        for row, picture in enumerate(inputs["image"].tolist()):
            if not picture:
                raise Refused("bad_image", "It is no picture.", row)
        counts = [[picture.count(letter) for letter in (b"a", b"b", b"c", b"d")] for picture in inputs["image"].tolist()]
        return {"scores": np.array(counts, dtype=np.float32)}


@pytest.fixture
async def make_plane() -> AsyncIterator[Callable[..., Plane]]:
    planes: list[Plane] = []

    def make(**limits: float) -> Plane:
        planes.append(Plane(RunnerLimits(**limits)))  # type: ignore[arg-type]
        return planes[-1]

    yield make
    for plane in planes:
        await plane.finish()


@pytest.fixture
async def plane(make_plane: Callable[..., Plane]) -> Plane:
    return make_plane()


@pytest.fixture
def images() -> Images:
    """A picture model."""
    return Images()


@pytest.fixture(scope="session")
def module_house() -> Callable[[Path], House]:
    """Make a serving plane that outlives a test, in an event loop of one's own."""
    return lambda run_dir: House(run_dir, ServingSettings())


Ask = Callable[..., tuple[int, dict[bytes, bytes], bytes]]


@pytest.fixture(scope="module")
def served_once(served_many: Callable[[dict[str, tuple[Signature, Compute]]], Ask]) -> Ask:
    """Ask one door with one model `m` again and again, without an event loop of the test's own (for properties)."""
    return served_many({"m": (NUMBERS, sums)})


@pytest.fixture(scope="module")
def served_many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[dict[str, tuple[Signature, Compute]]], Ask]]:
    """Make a door with models by name that can be asked again and again, without an event loop of the test's own."""
    with contextlib.ExitStack() as stack:
        yield lambda models: stack.enter_context(_asked_again(tmp_path_factory.mktemp("run"), models))


@contextlib.contextmanager
def _asked_again(folder: Path, models: dict[str, tuple[Signature, Compute]]) -> Iterator[Ask]:
    with asyncio.Runner() as runner:

        async def make() -> House:
            house = House(folder, ServingSettings())
            for name, (signature, compute) in models.items():
                await house.serve(name, signature, compute)
            return house

        house = runner.run(make())

        async def ask(
            method: str,
            path: str,
            body: bytes,
            content_type: bytes | None = b"application/json",
            headers: Sequence[tuple[bytes, bytes]] = (),
        ) -> tuple[int, dict[bytes, bytes], bytes]:
            sent: list[dict] = []

            async def receive() -> dict:
                return {"type": "http.request", "body": body, "more_body": False}

            async def send(message: dict) -> None:
                sent.append(message)

            scope = {
                "type": "http",
                "method": method,
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "headers": [
                    (b"x-api-key", b"all"),
                    (b"host", b"h"),
                    *(() if content_type is None else [(b"content-type", content_type)]),
                    *headers,
                ],
            }
            await house.door(scope, receive, send)
            return sent[0]["status"], dict(sent[0]["headers"]), b"".join(one.get("body", b"") for one in sent)

        yield lambda *asked: runner.run(ask(*asked))
        runner.run(house.close())


@pytest.fixture(scope="module")
def served_once_wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., tuple[int, dict[str, str], bytes]]]:
    """Send bytes, piece by piece, to one door with one model `m` through the server's own HTTP protocol; one answer each."""
    with asyncio.Runner() as runner:

        async def make() -> tuple[House, asyncio.Server, ServerState]:
            house = House(tmp_path_factory.mktemp("run"), ServingSettings())
            await house.serve("m")
            config = uvicorn.Config(
                house.door, http=HttpProtocol, ws="none", lifespan="off", log_config=None, proxy_headers=False
            )
            config.load()
            state = ServerState()
            server = await asyncio.get_running_loop().create_server(
                lambda: HttpProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
            )
            return house, server, state

        house, server, state = runner.run(make())

        async def ask(*pieces: bytes) -> tuple[int, dict[str, str], bytes]:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.001 if len(pieces) > 1 else 0)  # a packet of its own
            async with asyncio.timeout(10):
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers["content-length"]))
            writer.close()
            return int(head[0].split()[1]), headers, body

        yield lambda *pieces: runner.run(ask(*pieces))

        async def end() -> None:
            server.close()
            async with asyncio.timeout(10):
                while state.connections:
                    await asyncio.sleep(0)
            await house.close()

        runner.run(end())


@pytest.fixture
async def rpcs(house):
    """The model `m`, asked over gRPC."""
    from fixtures.rpcs import rpcs_of

    await house.serve("m")
    async with rpcs_of(house) as found:
        yield found
