"""Whatever fails while it is decided who may ask, nobody comes in by that: each call of the way in fails once, at each door."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import grpc
import msgspec
import pytest
from grpc import aio
from structlog.testing import capture_logs

from fixtures.nth_fault import BROKEN_OFF, each_fault, let_in
from fixtures.rpcs import ONE, SERVICE, Rpcs, rpcs_of
from modelkeep.contracts.access import Grant, Place, Role, Scope, Standing
from modelkeep.contracts.errors import NotFound
from modelkeep.contracts.snapshot import (
    ServedDeployment,
    ServedKey,
    ServedPerson,
    Signer,
    Snapshot,
    Trust,
    decode_snapshot,
    encode_snapshot,
)
from modelkeep.infra.site_key import SiteKey
from modelkeep.infra.tokens import ACCESS_LIFE, Issuer
from modelkeep.serving.gate import Gate
from modelkeep.serving.messages import PREDICT, Request, Response
from modelkeep.serving.protos import open_inference_pb2 as pb
from modelkeep.serving.view import Doors

RED, BLUE = Place("wsp_red", "mod_m", "usr_owner"), Place("wsp_blue", "mod_m", "usr_other")
ISSUER = Issuer(SiteKey(b"k" * 32))
SIGNER = ISSUER.new_key()
WAY_IN = (
    *(f"serving/{name}.py" for name in ("gate", "keys", "view", "stand_in", "http", "edge")),
    *(f"contracts/{name}.py" for name in ("access", "snapshot", "errors")),
    *(f"infra/{name}.py" for name in ("headers", "cookies", "addresses", "failures", "tokens")),
)
"""The modules in which it is decided who comes in."""
RPC_WAY_IN = (*WAY_IN, "serving/grpc/door.py", "serving/grpc/inference.py")
DECIDING = tuple(one for one in WAY_IN if one != "serving/http.py")
"""Without the modules that answer as well: a fault there may keep an answer that was due."""
OK = 200


def granted(user: str, role: Role, workspace: str, **bounds: frozenset) -> Standing:
    return Standing(user, (Grant(role, "workspace", workspace),), **bounds)


def keys() -> tuple[ServedKey, ...]:
    """Keys by the secret that opens them."""
    standings = {
        "predictor": granted("usr_p", Role.PREDICTOR, "wsp_red"),
        "owner": Standing("usr_owner"),
        "viewer": granted("usr_v", Role.VIEWER, "wsp_red"),
        "elsewhere": granted("usr_b", Role.ADMIN, "wsp_blue"),
        "nobody": Standing("usr_n"),
        "reader": granted("usr_r", Role.ADMIN, "wsp_red", scopes=frozenset({Scope.MODELS_READ})),
        "bound": granted("usr_o", Role.ADMIN, "wsp_red", models=frozenset({"mod_other"})),
        "inactive": Standing("usr_i", (Grant(Role.ADMIN, "installation"),), active=False),
        "expired": granted("usr_e", Role.ADMIN, "wsp_red"),
        "far": granted("usr_f", Role.ADMIN, "wsp_red"),
    }
    changes = {"expired": {"expires_at": 1.0}, "far": {"networks": ("192.0.2.0/24",)}}
    return tuple(
        msgspec.structs.replace(ServedKey(name, sha256(name.encode()).digest(), name, standing), **changes.get(name, {}))
        for name, standing in standings.items()
    )


def token(session: str, user: str = "usr_t") -> str:
    now = datetime.now(UTC) - timedelta(minutes=1)
    return ISSUER.sign(SIGNER, user, session, now=now, until=now + ACCESS_LIFE)


SECRETS = {"token": token("ses_1"), "ended": token("ses_ended"), "gone": token("ses_2", "usr_gone")}
LET_IN = ("predictor", "owner", "token")
REFUSED = {
    "": 401, "unknown": 401, "expired": 401, "inactive": 404, "ended": 401, "gone": 401,
    "reader": 403, "viewer": 403, "far": 403, "elsewhere": 404, "nobody": 404, "bound": 404,
}  # fmt: skip


class Tenants:
    """One model `m`, that lies in red, and lay in blue until a moment ago, with those who may ask it and those who may not."""

    def __init__(self, house) -> None:
        self.house = house
        self._people = {"usr_t": ServedPerson("t", granted("usr_t", Role.PREDICTOR, "wsp_red"))}

    def apply(self, place: Place) -> None:
        """Deliver news, as the feed does: all in it is made anew."""
        snapshot = Snapshot(
            self.house.router.snapshot.number + 1,
            time.time(),
            (ServedDeployment("m", "m-1", 1, place=place),),
            tuple(self.house.versions.values()),
            keys(),
            trust=Trust(ISSUER.names, (Signer(SIGNER.kid, SIGNER.public),), self._people, frozenset({"ses_ended"})),
        )
        snapshot = decode_snapshot(encode_snapshot(snapshot))
        self.house.keys.replace(snapshot.keys, snapshot.trust)
        self.house.router.apply(snapshot)

    def moved(self, ask: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[None]]:
        """Have something asked while the model lies in blue, so that it is remembered; then move it to red."""

        async def move() -> None:
            self.apply(BLUE)
            await ask()
            self.apply(RED)

        return move


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """Each fault is told in the log, with all that was at hand: thousands of them would take minutes to write."""
    with capture_logs():
        yield


@pytest.fixture
async def tenants(house) -> Tenants:
    await house.serve("m")
    tenants = Tenants(house)
    tenants.apply(RED)
    return tenants


Ask = Callable[[], Awaitable[int]]


def headers(who: str) -> dict[str, str]:
    return {"x-api-key": SECRETS.get(who, who)} if who else {}


def native(tenants: Tenants, who: str) -> Ask:
    async def ask() -> int:
        tenants.house.client.headers.pop("x-api-key", None)
        answer = await tenants.house.client.post(f"{PREDICT}m", json={"inputs": [[1.0, 2.0]]}, headers=headers(who))
        assert ("outputs" in answer.text) == (answer.status_code == OK)
        return answer.status_code

    return ask


def described(tenants: Tenants, who: str) -> Ask:
    async def ask() -> int:
        tenants.house.client.headers.pop("x-api-key", None)
        return (await tenants.house.client.get("/v2/models/m", headers=headers(who))).status_code

    return ask


def listed(tenants: Tenants, who: str) -> Ask:
    """An empty list is a refusal."""

    async def ask() -> int:
        tenants.house.client.headers.pop("x-api-key", None)
        answer = await tenants.house.client.get("/v1/models", headers=headers(who))
        return 404 if answer.status_code == OK and answer.json() == {"models": []} else answer.status_code

    return ask


def whole(tenants: Tenants, who: str) -> Ask:
    """The short way of small predictions."""

    async def ask() -> int:
        answered: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        given = [(name.encode(), value.encode()) for name, value in headers(who).items()]
        request = Request("POST", f"{PREDICT}m", [(b"content-type", b"application/json"), (b"host", b"door"), *given])
        tenants.house.door.predict_whole(request, b'{"inputs": [[1.0, 2.0]]}', answered.set_result)
        return (await answered).status

    return ask


REST = {"native": native, "described": described, "listed": listed, "whole": whole}


@pytest.mark.parametrize("door", REST)
@pytest.mark.parametrize("who", REFUSED)
async def test_no_fault_on_the_way_lets_in_who_is_refused(tenants: Tenants, door: str, who: str):
    ask = REST[door](tenants, who)
    # of models that one may see and not ask, lists say nothing
    assert await ask() == (404 if (door, who) == ("listed", "viewer") else REFUSED[who])
    answers = await each_fault(ask, WAY_IN, before=tenants.moved(ask))
    assert len(answers) >= 10
    assert let_in(answers) == []


@pytest.mark.parametrize("door", REST)
@pytest.mark.parametrize("who", LET_IN)
async def test_who_is_let_in_is_so_again_once_the_fault_is_over(tenants: Tenants, door: str, who: str):
    ask = REST[door](tenants, who)
    assert await ask() == OK
    answers = await each_fault(ask, DECIDING, before=tenants.moved(ask))
    assert len(answers) >= 10
    assert [one for one in answers if one.after != OK] == []
    assert {one.status for one in answers} <= {OK, 401, 403, 404, 500, BROKEN_OFF}


@pytest.mark.parametrize("error", [KeyError, ValueError, MemoryError, TimeoutError, NotFound, StopAsyncIteration])
@pytest.mark.parametrize("who", ["elsewhere", "viewer", "ended", "expired"])
async def test_no_kind_of_fault_does(tenants: Tenants, who: str, error: type[Exception]):
    ask = native(tenants, who)
    answers = await each_fault(ask, WAY_IN, before=tenants.moved(ask), error=error)
    assert let_in(answers) == []


async def test_who_may_no_more_since_the_model_was_moved_comes_in_by_no_fault(tenants: Tenants):
    """What is remembered of the snapshot before is forgotten whole, or it is forgotten again."""
    ask = native(tenants, "elsewhere")
    tenants.apply(BLUE)
    assert await ask() == OK, "as long as it lies in blue"
    answers = await each_fault(ask, WAY_IN, before=tenants.moved(ask))
    assert let_in(answers) == []


async def test_news_too_old_is_no_way_in_either(tenants: Tenants):
    tenants.house.keys._clock = lambda: time.time() + 100_000
    for who in (*LET_IN, *REFUSED):
        ask = native(tenants, who)
        assert await ask() in {401, 503}
        assert let_in(await each_fault(ask, WAY_IN)) == []


@pytest.mark.parametrize("who", ["", "viewer", "elsewhere"])
async def test_metrics_open_by_no_fault(tenants: Tenants, who: str):
    async def ask() -> int:
        tenants.house.client.headers.pop("x-api-key", None)
        return (await tenants.house.client.get("/metrics", headers=headers(who))).status_code

    assert await ask() in {401, 403}
    assert let_in(await each_fault(ask, WAY_IN)) == []


CODES = {grpc.StatusCode.UNAUTHENTICATED: 401, grpc.StatusCode.PERMISSION_DENIED: 403, grpc.StatusCode.NOT_FOUND: 404}


def rpc(rpcs: Rpcs, name: str, message: object, who: str, seconds: float = 10) -> Ask:
    """`seconds`: what fails where the library asks us is never answered."""

    async def ask() -> int:
        try:
            answer = await rpcs.ask(name, message, metadata=tuple(headers(who).items()), timeout=seconds)
        except aio.AioRpcError as error:
            return CODES.get(error.code(), 500)
        empty = name == "RepositoryIndex" and not pb.RepositoryIndexResponse.FromString(answer).models
        return 404 if empty else OK

    return ask


RPCS = {
    "ModelInfer": ONE,
    "ModelMetadata": pb.ModelMetadataRequest(name="m"),
    "RepositoryIndex": pb.RepositoryIndexRequest(),
}


@pytest.mark.parametrize("name", RPCS)
@pytest.mark.parametrize("who", ["", "expired", "ended", "reader", "viewer", "elsewhere", "nobody"])
async def test_no_fault_on_the_way_of_grpc_lets_in_who_is_refused(tenants: Tenants, name: str, who: str):
    async with rpcs_of(tenants.house) as rpcs:
        ask = rpc(rpcs, name, RPCS[name], who, 1)
        assert await ask() == (404 if (name, who) == ("RepositoryIndex", "viewer") else REFUSED[who])
        answers = await each_fault(ask, RPC_WAY_IN, before=tenants.moved(ask))
        assert len(answers) >= 10
        assert let_in(answers) == []


@pytest.mark.parametrize("who", LET_IN)
async def test_over_grpc_too_a_fault_that_is_over_keeps_nobody_out(tenants: Tenants, who: str):
    async with rpcs_of(tenants.house) as rpcs:
        ask = rpc(rpcs, "ModelInfer", ONE, who)
        assert await ask() == OK
        answers = await each_fault(ask, DECIDING, before=tenants.moved(ask))
        assert len(answers) >= 10
        assert [one for one in answers if one.after != OK] == []


async def test_each_question_of_a_stream_is_decided_anew_and_a_fault_answers_none(tenants: Tenants):
    """Who was let in when the stream began, and may no more."""
    async with rpcs_of(tenants.house) as rpcs:

        async def ask() -> int:
            tenants.apply(RED)
            call = rpcs.channel.stream_stream(f"{SERVICE}ModelStreamInfer")(
                metadata=tuple(headers("predictor").items()), timeout=1
            )
            await call.write(ONE.SerializeToString())
            first = pb.ModelStreamInferResponse.FromString(await call.read())
            assert not first.error_message
            tenants.apply(BLUE)
            await call.write(ONE.SerializeToString())
            try:
                second = await call.read()
            except aio.AioRpcError as error:
                return CODES.get(error.code(), 500)
            finally:
                call.cancel()
            return 404 if second is aio.EOF or pb.ModelStreamInferResponse.FromString(second).error_message else OK

        assert await ask() == REFUSED["elsewhere"]
        assert let_in(await each_fault(ask, RPC_WAY_IN)) == []


# ---- controls: doors that fail open are found


async def test_a_door_that_opens_when_deciding_fails_is_found(tenants: Tenants, monkeypatch: pytest.MonkeyPatch):
    check = Doors.check

    def open_when_broken(self: Doors, key: ServedKey, deployment: str) -> None:
        try:
            check(self, key, deployment)
        except RuntimeError:
            return

    monkeypatch.setattr(Doors, "check", open_when_broken)
    ask = native(tenants, "elsewhere")
    found = let_in(await each_fault(ask, WAY_IN, before=tenants.moved(ask)))
    assert found
    assert any("serving/view.py" in one.where for one in found)
    async with rpcs_of(tenants.house) as rpcs:
        ask = rpc(rpcs, "ModelInfer", ONE, "elsewhere", 1)
        assert let_in(await each_fault(ask, RPC_WAY_IN, before=tenants.moved(ask)))


async def test_a_gate_that_opens_when_a_signature_cannot_be_checked_is_found(tenants: Tenants, monkeypatch: pytest.MonkeyPatch):
    enter = Gate.enter
    (good,) = (one for one in keys() if one.id == "predictor")

    def open_when_broken(self: Gate, request: Request, scope: Scope) -> ServedKey:
        try:
            return enter(self, request, scope)
        except RuntimeError:
            request.key = good
            return good

    monkeypatch.setattr(Gate, "enter", open_when_broken)
    assert let_in(await each_fault(native(tenants, "ended"), WAY_IN))


async def test_decisions_that_outlive_a_fault_while_they_are_forgotten_are_found(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
):
    """Where the number of the snapshot is noted before what it says is taken in."""

    def half_forget(self: Doors) -> None:
        snapshot = self._router.snapshot
        self._snapshot = snapshot.number
        self._places = {one.name: one for one in snapshot.deployments}
        self._decided.clear()

    monkeypatch.setattr(Doors, "_forget", half_forget)
    ask = native(tenants, "elsewhere")
    assert let_in(await each_fault(ask, (*WAY_IN, __file__), before=tenants.moved(ask)))
