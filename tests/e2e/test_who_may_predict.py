"""Every door of the servers, asked by every role of two tenants with keys and tokens: it answers as the one decision says."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from fixtures import doors
from fixtures.access import rpc_table, table
from fixtures.artifacts import onnx_scores
from fixtures.crowd import Crowd
from fixtures.installation import Installation, eventually, free_port, installed
from modelkeep.contracts.access import INSTALLATION, Grant, Place, Role, Scope, Standing, decide, sees
from modelkeep.serving.protos import open_inference_pb2 as pb
from modelkeep.serving.router import DeploymentNotFound

VERTEX, VERTEX_HEALTH = "/vertex/predict", "/vertex/health"
PLACES = {"red-model": Place("red", "red-model", "owner"), "blue-model": Place("blue", "blue-model", "admin")}
ABSENT = "rad-model"
"""A name that there is not, as long as one that there is."""
ROW = [1.0, 2.0]
INPUTS = {"inputs": [ROW]}
V2 = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": ROW}]}
INSTANCES, EXAMPLES = {"instances": [ROW]}, {"examples": [{"x": ROW}]}

REFUSED_ITSELF = 400
"""What the model is not made for."""

Kind = Literal["model", "list", "server", "open", "metrics", "page", "write"]
"""What an address is about: a model, all models, the server (any caller with the scope), or nothing that needs a key;
all metrics; a page of the documentation; a model, that is changed."""


class Row(NamedTuple):
    """How a door is asked. Where the path has no place for a model, the query names it."""

    kind: Kind
    body: object = None
    query: str = ""
    path: str = ""
    usual: int = 200


ROWS: dict[tuple[str, str], Row] = {
    ("POST", "/api/v1/predict/{deployment}"): Row("model", INPUTS),
    ("POST", "/predict"): Row("model", INPUTS, "?model={model}"),
    ("GET", "/info"): Row("model", query="?model={model}"),
    ("GET", "/v2"): Row("server"),
    ("GET", "/v2/health/live"): Row("open"),
    ("GET", "/v2/health/ready"): Row("open"),
    **{
        ("GET", f"/v2/models/{{model}}{versions}{what}"): Row("model")
        for versions in ("", "/versions/{version}")
        for what in ("", "/ready", "/config", "/stats")
    },
    ("POST", "/v2/models/{model}/infer"): Row("model", V2),
    ("POST", "/v2/models/{model}/versions/{version}/infer"): Row("model", V2),
    ("GET", "/v2/models/stats"): Row("list"),
    ("POST", "/v2/repository/index"): Row("list", {}),
    ("GET", "/v1/models"): Row("list"),
    **{
        ("GET", f"/v1/models/{{model}}{which}{what}"): Row("model")
        for which in ("", "/versions/{version}", "/labels/{label}")
        for what in ("", "/metadata")
    },
    **{
        ("POST", f"/v1/models/{{model}}{which}:{verb}"): Row("model", body, usual=usual)
        for which in ("", "/versions/{version}", "/labels/{label}")
        for verb, body, usual in (
            ("predict", INSTANCES, 200),
            ("classify", EXAMPLES, 200),
            ("regress", EXAMPLES, REFUSED_ITSELF),
            ("explain", INSTANCES, 404),  # there are no explainers, which is told of a model that is there
        )
    },
    ("POST", "/invocations"): Row("model", INPUTS, "?model={model}"),
    ("POST", "/serving-endpoints/{name}/invocations"): Row("model", INPUTS),
    ("POST", "/endpoints/{name}/invocations"): Row("model", INPUTS),
    ("GET", "/ping"): Row("open", usual=404),  # several models answer, and it names none
    ("GET", "/version"): Row("open"),
    ("GET", "/healthz"): Row("open"),
    ("GET", "/readyz"): Row("open"),
    ("GET", "/health"): Row("open"),
    ("GET", "/metrics"): Row("metrics"),
    ("POST", "/v2/repository/models/{name}/load"): Row("write"),
    ("POST", "/v2/repository/models/{name}/unload"): Row("write"),
    ("GET", "/openapi.json"): Row("page"),
    ("GET", "/docs"): Row("page"),
    ("GET", "/docs/oauth2-redirect"): Row("page"),
    ("GET", "/redoc"): Row("page"),
    ("GET", "/static-offline-docs/..."): Row("page", path="/static-offline-docs/swagger-ui.css"),
}
MORE = {
    ("POST", VERTEX): Row("model", INSTANCES, "?model={model}"),
    ("GET", VERTEX_HEALTH): Row("open"),
    ("GET", "/info "): Row("list", path="/info"),
}
"""Beside the table: where the settings put Vertex AI's routes, and what an address does with no model named."""

SERVICE = "/inference.GRPCInferenceService/"
REFLECTION = reflection_pb2.ServerReflectionRequest(list_services="")


class Rpc(NamedTuple):
    """How an RPC is asked; `message` makes what is sent about a model."""

    kind: Kind
    message: Any = lambda _model: b""
    streams: bool = False


def _question(model: str) -> pb.ModelInferRequest:
    asked = pb.ModelInferRequest(model_name=model)
    asked.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend(ROW)
    return asked


RPCS: dict[str, Rpc] = {
    f"{SERVICE}ServerLive": Rpc("open"),
    f"{SERVICE}ServerReady": Rpc("open"),
    f"{SERVICE}ServerMetadata": Rpc("server"),
    f"{SERVICE}ModelReady": Rpc("model", lambda model: pb.ModelReadyRequest(name=model)),
    f"{SERVICE}ModelMetadata": Rpc("model", lambda model: pb.ModelMetadataRequest(name=model)),
    f"{SERVICE}ModelConfig": Rpc("model", lambda model: pb.ModelConfigRequest(name=model)),
    f"{SERVICE}ModelStatistics": Rpc("model", lambda model: pb.ModelStatisticsRequest(name=model)),
    f"{SERVICE}ModelInfer": Rpc("model", _question),
    f"{SERVICE}ModelStreamInfer": Rpc("model", _question, streams=True),
    f"{SERVICE}RepositoryIndex": Rpc("list", lambda _model: pb.RepositoryIndexRequest()),
    f"{SERVICE}RepositoryModelLoad": Rpc("write", lambda model: pb.RepositoryModelLoadRequest(model_name=model)),
    f"{SERVICE}RepositoryModelUnload": Rpc("write", lambda model: pb.RepositoryModelUnloadRequest(model_name=model)),
    "/grpc.health.v1.Health/Check": Rpc("open", lambda _model: health_pb2.HealthCheckRequest()),
    "/grpc.health.v1.Health/Watch": Rpc("open", lambda _model: health_pb2.HealthCheckRequest(), streams=True),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rpc("server", lambda _model: REFLECTION, streams=True),
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Rpc("server", lambda _model: REFLECTION, streams=True),
}
CODES = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
}


@dataclass(frozen=True)
class Caller:
    """Who asks: what they bring, and what that is good for; None where it is good for nothing."""

    name: str
    headers: dict[str, str]
    standing: Standing | None


class House(NamedTuple):
    """The installation, and who asks it."""

    installation: Installation
    callers: list[Caller]
    crowd: Crowd

    def caller(self, name: str) -> Caller:
        return next(one for one in self.callers if one.name == name)


def rest_doors() -> set[tuple[str, str]]:
    """The table's rows without the control plane's; that the table has all that the code has is a test of the house's rules."""
    return {
        (method, path) for method, path in table() if not path.startswith("/api/v1/") or path == "/api/v1/predict/{deployment}"
    } | doors.described()


def test_every_door_is_asked_here():
    assert ROWS.keys() == rest_doors()
    assert RPCS.keys() == doors.rpcs().keys() == rpc_table().keys()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two tenants with a model each, and everybody who may ask them or may not."""
    folder = tmp_path_factory.mktemp("tenants")
    settings = {
        "MODELKEEP_SERVER__GRPC_PORT": str(free_port()),
        "MODELKEEP_SERVING__PREDICT_ROUTE": VERTEX,
        "MODELKEEP_SERVING__HEALTH_ROUTE": VERTEX_HEALTH,
        "MODELKEEP_LIMITS__USER_RATE": "1000000/min",
        "MODELKEEP_LIMITS__API_RATE": "1000000/min",
        "MODELKEEP_AUTH__REGISTRATION": "invite",
        "MODELKEEP_ACCESS__TWO_PERSON": "deletion",
    }
    with installed(folder / "data", patience_s=150, **settings) as own:
        crowd = Crowd(own)
        _models(crowd, folder)
        callers = _everybody(crowd)
        last = crowd.person("last", ("predictor", "installation", ""))  # who is known once all before are
        eventually(lambda: _status(own, ("GET", "/v2"), Caller("", last.bearer, None), "") == 200, "all are known")
        yield House(own, callers, crowd)
        crowd.close()
        _clients.pop(own.url).close()


def _models(crowd: Crowd, folder: Path) -> None:
    file = folder / "model.onnx"
    file.write_bytes(onnx_scores(width=2))
    for name, place in PLACES.items():
        crowd.workspace(place.workspace)
        crowd.admin.post("/api/v1/models", json={"name": name, "workspace": place.workspace}).raise_for_status()
        with crowd.house.client() as client:
            client.push(file, name)
        crowd.admin.put(f"/api/v1/models/{name}/aliases/champion", json={"version": 1}).raise_for_status()


def _everybody(crowd: Crowd) -> list[Caller]:
    found: list[Caller] = []

    def add(name: str, headers: dict[str, str], standing: Standing | None) -> None:
        found.append(Caller(name, headers, standing))

    def person(name: str, *grants: Grant) -> Standing:
        made = crowd.person(name, *((one.role.value, one.kind, one.on) for one in grants))
        add(name, made.bearer, Standing(name, grants))
        return Standing(name, grants)

    for role in Role:
        for kind, on in (("installation", ""), ("workspace", "red"), ("model", "red-model")):
            person(f"{role.value}-{kind}", Grant(role, kind, on))
    person("stranger")
    owner = person("owner")
    crowd.admin.post("/api/v1/models/red-model/move", json={"owner": crowd.people["owner"].id}).raise_for_status()
    member = crowd.person("member")
    crowd.group("readers", [member], ("predictor", "workspace", "red"))
    add("member", member.bearer, Standing("member", (Grant(Role.PREDICTOR, "workspace", "red"),)))
    everything = (Grant(Role.ADMIN, "installation"),)
    admin = crowd.people["admin-installation"]

    def key(name: str, of: str, standing: Standing, *scopes: Scope, models: list[str] | None = None) -> tuple[str, str]:
        made = crowd.people[of].key(*(one.value for one in scopes), **({} if models is None else {"models": models}))
        bounds = {"scopes": frozenset(scopes or (Scope.ADMIN,)), "models": None if models is None else frozenset(models)}
        add(name, {"x-api-key": made[1]}, Standing(standing.user, standing.grants, **bounds))
        return made

    key("key of the owner", "owner", owner)
    key("key of the stranger", "stranger", Standing("stranger"))
    key("key bound to the red model", "admin-installation", Standing("a", everything), models=["red-model"])
    for scope in (Scope.PREDICT, Scope.MODELS_READ, Scope.MODELS_WRITE, Scope.METRICS_READ):
        key(f"key for {scope.value}", "admin-installation", Standing("a", everything), scope)
    revoked = admin.key()
    crowd.admin.delete(f"/api/v1/keys/{revoked[0]}").raise_for_status()
    rotated = admin.key()
    with httpx.Client(base_url=crowd.house.url, headers=admin.bearer) as http:
        http.post(f"/api/v1/keys/{rotated[0]}/rotate", json={"keep_days": 0}).raise_for_status()
    expired = admin.key(expires_in_days=1)
    _expire(crowd.house, expired[0])
    add("nobody", {}, None)
    add("a key that there is not", {"x-api-key": revoked[1][:-4] + "aaaa"}, None)
    add("a revoked key", {"x-api-key": revoked[1]}, None)
    add("a key's secret of before", {"x-api-key": rotated[1]}, None)
    add("an expired key", {"x-api-key": expired[1]}, None)
    token = admin.login()
    with httpx.Client(base_url=crowd.house.url, headers={"authorization": f"Bearer {token}"}) as http:
        http.post("/api/v1/auth/logout").raise_for_status()
    add("a token of a session that ended", {"authorization": f"Bearer {token}"}, None)
    signature = admin.token[:-6] + ("aaaaaa" if not admin.token.endswith("aaaaaa") else "bbbbbb")
    add("a token that is not signed", {"authorization": f"Bearer {signature}"}, None)
    return found


def _expire(house: Installation, key_id: str) -> None:
    """Have a key's time be over: the shortest that one may ask for is a day."""
    with sqlite3.connect(house.data / "modelkeep.db", timeout=20) as db:
        changed = db.execute("UPDATE api_keys SET expires_at = '2020-01-01 00:00:00.000000' WHERE id = ?", (key_id,))
        assert changed.rowcount == 1


# ---- what is expected


def _expected(caller: Caller, kind: Kind, scope: Scope | None, model: str, usual: int) -> int:
    """The status that the table and the one decision say."""
    if kind == "open":
        return usual
    if caller.standing is None:
        return 401
    if kind == "page":
        return usual
    assert scope is not None
    if not caller.standing.carries(scope):
        return 403
    if kind in {"server", "list"}:
        return usual
    place = INSTALLATION if kind == "metrics" else PLACES[model]
    if decide(caller.standing, scope, place).allowed:
        return usual
    return 404 if place.model and not sees(caller.standing, place) else 403


def _may_ask(caller: Caller) -> set[str]:
    standing = caller.standing
    return set() if standing is None else {name for name, one in PLACES.items() if decide(standing, Scope.PREDICT, one).allowed}


def _ask(house: Installation, route: tuple[str, str], caller: Caller, model: str, **headers: str) -> httpx.Response:
    row = (ROWS | MORE)[route]
    values = dict.fromkeys(("deployment", "model", "name"), model) | {"version": "1", "label": "champion"}
    path = (row.path or route[1]).format_map(values) + row.query.format_map(values)
    return _http(house).request(route[0], path, json=row.body, headers=caller.headers | headers)


def _status(house: Installation, route: tuple[str, str], caller: Caller, model: str) -> int:
    return _ask(house, route, caller, model).status_code


_clients: dict[str, httpx.Client] = {}


def _http(house: Installation) -> httpx.Client:
    return _clients.setdefault(house.url, httpx.Client(base_url=house.url, timeout=30))


class Said(NamedTuple):
    """How an RPC ended: status as HTTP has it, sentence, trailing metadata, and the answer."""

    status: int
    sentence: str
    trailing: tuple[tuple[str, str], ...]
    answer: bytes


class Grpc:
    """Asks RPCs over one channel."""

    def __init__(self, house: Installation) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{house.grpc_port}")

    def ask(self, path: str, caller: Caller, model: str, **metadata: str) -> Said:
        rpc = RPCS[path]
        message = rpc.message(model)
        body = message if isinstance(message, bytes) else message.SerializeToString()
        given = tuple((caller.headers | metadata).items())
        if rpc.streams:
            return self._streamed(path, body, given)
        call = self._channel.unary_unary(path).with_call
        try:
            answer, done = call(body, metadata=given, timeout=20)
        except grpc.RpcError as error:
            return _refused(error)
        return Said(200, "", tuple(done.trailing_metadata()), answer)

    def _streamed(self, path: str, body: bytes, given: tuple[tuple[str, str], ...]) -> Said:
        """Ask the first question of a stream, whose refusal of a model is told in it."""
        stream = self._channel.stream_stream(path)(iter([body]), metadata=given, timeout=20)
        try:
            answer = next(stream)
        except grpc.RpcError as error:
            return _refused(error)
        finally:
            stream.cancel()
        if "ModelStreamInfer" not in path:
            return Said(200, "", (), answer)
        sentence = pb.ModelStreamInferResponse.FromString(answer).error_message
        hidden = sentence == DeploymentNotFound().message
        return Said(200 if not sentence else 404 if hidden else 403, sentence, (), answer)

    def close(self) -> None:
        self._channel.close()


def _refused(error: Any) -> Said:
    return Said(CODES.get(error.code(), 500), error.details(), tuple(error.trailing_metadata()), b"")


@pytest.fixture(scope="module")
def rpcs(house: House) -> Iterator[Grpc]:
    asked = Grpc(house.installation)
    yield asked
    asked.close()


# ---- the tests


@pytest.mark.timeout(600)
def test_every_door_answers_over_http_as_the_decision_says(house: House):
    wrong, counted = [], Counter[int]()
    for route, row in (ROWS | MORE).items():
        scope = table().get(route) or (Scope.PREDICT if row.kind in {"model", "list"} else None)
        for caller in house.callers:
            for model in PLACES if row.kind in {"model", "write"} else ("",):
                expected = _expected(caller, row.kind, Scope(scope) if scope else None, model, row.usual)
                if row.kind == "write" and expected == row.usual:
                    continue  # whoever may, loads: it is walked elsewhere
                answer = _ask(house.installation, route, caller, model)
                counted[answer.status_code] += 1
                shown = {name for name in PLACES if name in answer.text}
                explains = route[1].endswith(":explain") and model in _may_ask(caller) and expected == row.usual
                told = row.kind == "model" and "explainer" in answer.text
                if answer.status_code != expected or told != explains:
                    wrong.append((*route, caller.name, model, expected, answer.status_code, answer.text[:200]))
                elif row.kind == "list" and expected == row.usual and shown != _may_ask(caller):
                    wrong.append((*route, caller.name, sorted(shown), sorted(_may_ask(caller)), 0, ""))
                elif row.kind not in {"page", "metrics"} and shown - _may_ask(caller) - {model}:
                    wrong.append((*route, caller.name, model, expected, answer.status_code, sorted(shown)))
    print(f"\n{len(ROWS) + len(MORE)} doors, {len(house.callers)} callers: {dict(sorted(counted.items()))}")
    assert wrong == []
    assert min(counted[one] for one in (200, 401, 403, 404)) > 100


def test_every_rpc_answers_as_the_decision_says(house: House, rpcs: Grpc):
    wrong, counted = [], Counter[int]()
    for path, rpc in RPCS.items():
        for caller in house.callers:
            for model in PLACES if rpc.kind in {"model", "write"} else ("",):
                scope = rpc_table()[path]
                expected = _expected(caller, rpc.kind, Scope(scope) if scope else None, model, 200)
                if rpc.kind == "write" and expected == 200:
                    continue  # as above
                said = rpcs.ask(path, caller, model)
                counted[said.status] += 1
                shown = {name for name in PLACES if name.encode() in said.answer}
                if said.status != expected:
                    wrong.append((path, caller.name, model, expected, said.status, said.sentence))
                elif rpc.kind == "list" and expected == 200 and shown != _may_ask(caller):
                    wrong.append((path, caller.name, model, sorted(shown), sorted(_may_ask(caller)), ""))
    print(f"\n{len(RPCS)} RPCs, {len(house.callers)} callers: {dict(sorted(counted.items()))}")
    assert wrong == []
    assert min(counted[one] for one in (200, 401, 403, 404)) > 50


def test_what_is_hidden_is_answered_over_http_as_what_is_not_there(house: House):
    told = {"x-request-id": "the-same"}
    for route, row in (ROWS | MORE).items():
        if row.kind not in {"model", "write"}:
            continue
        for name in ("stranger", "key of the stranger", "admin-workspace"):
            hidden = "blue-model" if name == "admin-workspace" else "red-model"
            absent = ABSENT if hidden == "red-model" else "blub-model"
            there, not_there = (_ask(house.installation, route, house.caller(name), one, **told) for one in (hidden, absent))
            assert there.status_code == not_there.status_code == 404, (route, name)
            assert there.text.replace(hidden, "") == not_there.text.replace(absent, ""), (route, name)
            assert _comparable(there) == _comparable(not_there), (route, name)


def _comparable(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in {"date", "ratelimit"}}


def test_what_is_hidden_is_answered_over_grpc_as_what_is_not_there(house: House, rpcs: Grpc):
    for path, rpc in RPCS.items():
        if rpc.kind not in {"model", "write"}:
            continue
        for name in ("stranger", "key of the stranger"):
            there, not_there = (
                rpcs.ask(path, house.caller(name), one, **{"x-request-id": "same"}) for one in ("red-model", ABSENT)
            )
            assert there == not_there, (path, name)
            assert there.status == 404, (path, name)


def test_a_caller_who_may_ask_one_model_need_not_name_it_and_learns_of_no_other(house: House):
    """Doors without a place for a name: for who may ask several, one must be named; for others there is but theirs."""
    for path, body in (("/predict", INPUTS), ("/invocations", INPUTS), (VERTEX, INSTANCES)):
        answers = {
            name: _http(house.installation).post(path, json=body, headers=house.caller(name).headers)
            for name in ("admin-installation", "predictor-workspace", "stranger", "viewer-workspace")
        }
        assert {name: one.status_code for name, one in answers.items()} == {
            "admin-installation": 404, "predictor-workspace": 200, "stranger": 404, "viewer-workspace": 404,
        }, path  # fmt: skip
        assert not any(name in answers["stranger"].text for name in PLACES)


# ---- ids of others

_BODIES: dict[tuple[str, str], object] = {
    ("POST", "/api/v1/alerts/{alert_id}/resolve"): {"note": "n"},
    ("POST", "/api/v1/approvals/{approval_id}/refuse"): {"reason": "r"},
    ("POST", "/api/v1/keys/{key_id}/rotate"): {"keep_days": 1},
    ("PUT", "/api/v1/keys/{key_id}/certificate"): {"names": ["dns:scoring.example.org"]},
    ("PATCH", "/api/v1/users/{user_id}"): {"display_name": "d"},
}
_NONE = "00000000"


def test_ids_of_others_open_nothing_and_tell_nothing(house: House):
    """Each route that takes an id, with one of another tenant: it is answered as an id that there is not."""
    ids = _ids(house)
    routes = [(method, path) for method, path in table() if "_id}" in path]
    assert len(routes) >= 15
    wrong, asked = [], 0
    for method, path in routes:
        for name in ("stranger", "developer-workspace", "key for predict"):
            answers = []
            for suffix in (None, _NONE):
                values = {one: there if suffix is None else there[: -len(suffix)] + suffix for one, there in ids.items()}
                answer = _http(house.installation).request(
                    method,
                    path.format_map(values | {"name": "readers"}),
                    json=_BODIES.get((method, path)),
                    headers=house.caller(name).headers | {"x-request-id": "same"},
                )
                said = answer.text
                for one in values.values():
                    said = said.replace(one, "ID")
                answers.append((answer.status_code, said))
            asked += 1
            if answers[0] != answers[1] or answers[0][0] not in {403, 404}:
                wrong.append((method, path, name, *answers))
    assert wrong == []
    assert asked >= 45
    found = house.crowd.admin.get(f"/api/v1/predictions/{ids['prediction_id']}")
    assert found.status_code == 200, "it is there all the time, for who may read it"
    assert house.crowd.admin.get(f"/api/v1/replays/{ids['replay_id']}").status_code == 200


def _rollout(house: House, admin: httpx.Client) -> str:
    """The id of a rollout of the blue tenant's model, which is held: that is an alert."""
    file = house.installation.data.parent / "second.onnx"
    file.write_bytes(onnx_scores(width=2))
    with house.installation.client() as client:
        client.push(file, "blue-model")
    wanted = {"deployment": "blue-model", "version": 2, "steps": ["10:0s"], "patience_minutes": 0}
    asked = admin.post("/api/v1/rollouts", json=wanted)
    return str(asked.raise_for_status().json()["id"])


def _alert(admin: httpx.Client) -> str:
    """The id of the alert about that rollout."""
    items: list[dict[str, str]] = []

    def raised() -> bool:
        items.extend(admin.get("/api/v1/alerts").raise_for_status().json()["items"])
        return bool(items)

    eventually(raised, "the rollout is held")
    return items[0]["id"]


def _ids(house: House) -> dict[str, str]:
    """One id of each kind, of the blue tenant or its people."""
    admin, crowd = house.crowd.admin, house.crowd
    blue = crowd.person("blue", ("developer", "workspace", "blue"))
    answer = admin.post("/api/v1/predict/blue-model", json=INPUTS).raise_for_status()
    prediction = answer.headers["x-prediction-id"]
    eventually(lambda: admin.get(f"/api/v1/predictions/{prediction}").status_code == 200, "it is in the history")
    replay = admin.post("/api/v1/models/blue-model/versions/1/replays", json={"last": 1}).raise_for_status().json()["id"]
    grants = admin.get("/api/v1/grants", params={"subject_kind": "user", "subject": blue.id}).json()["items"]
    with httpx.Client(base_url=house.installation.url, headers=blue.bearer) as http:
        sessions = http.get("/api/v1/me/sessions").raise_for_status().json()["items"]
    return {
        "prediction_id": prediction,
        "replay_id": replay,
        "grant_id": grants[0]["id"],
        "key_id": blue.key()[0],
        "session_id": sessions[0]["id"],
        "user_id": blue.id,
        "rollout_id": _rollout(house, admin),
        "alert_id": _alert(admin),
        "approval_id": admin.post("/api/v1/models/blue-model/archive").json()["approval"],
        "invitation_id": admin.post("/api/v1/invitations", json={}).raise_for_status().json()["id"],
    }
