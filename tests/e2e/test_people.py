"""People ask for predictions with their access tokens, at every door, until they log out or may no more."""

from collections.abc import Callable
from pathlib import Path

import grpc
import httpx
import numpy as np
import onnx
import pytest

from fixtures.artifacts import onnx_identity
from fixtures.installation import Installation, eventually, free_port, installed
from modelkeep.contracts.access import Role
from modelkeep.serving.protos import open_inference_pb2 as messages

PASSWORD = "correct horse battery staple"
BODY = {"inputs": [[1.0, 2.0]]}
V2 = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}


class Person:
    """Somebody who has logged in."""

    def __init__(self, house: Installation, port: str, name: str, role: Role) -> None:
        self.house, self.port = house, port
        with house.http() as admin:
            made = admin.post("/api/v1/users", json={"name": name, "email": f"{name}@example.org", "role": role})
            self.id = made.raise_for_status().json()["id"]
            link = admin.post(f"/api/v1/users/{self.id}/reset-password").raise_for_status().json()
            admin.post("/api/v1/auth/reset-password", json={"token": link["token"], "password": PASSWORD}).raise_for_status()
            given = admin.post("/api/v1/auth/login", json={"email": f"{name}@example.org", "password": PASSWORD})
        self.token = given.raise_for_status().json()["access_token"]
        self.bearer = {"authorization": f"Bearer {self.token}"}

    def rest(self) -> int:
        return httpx.post(f"{self.house.url}/api/v1/predict/echo", json=BODY, headers=self.bearer).status_code

    def open_inference(self) -> int:
        return httpx.post(f"{self.house.url}/v2/models/echo/infer", json=V2, headers=self.bearer).status_code

    def as_a_key(self) -> int:
        return httpx.post(f"{self.house.url}/api/v1/predict/echo", json=BODY, headers={"x-api-key": self.token}).status_code

    def grpc(self) -> int:
        """The status as HTTP has it."""
        values = messages.InferTensorContents(fp32_contents=[1.0, 2.0])
        tensor = messages.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2], contents=values)
        request = messages.ModelInferRequest(model_name="echo", inputs=[tensor])
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            infer = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=messages.ModelInferRequest.SerializeToString,
                response_deserializer=messages.ModelInferResponse.FromString,
            )
            try:
                infer(request, metadata=[("authorization", f"Bearer {self.token}")], timeout=10)
            except grpc.RpcError as error:
                known = {grpc.StatusCode.UNAUTHENTICATED: 401, grpc.StatusCode.NOT_FOUND: 404}
                return known[error.code()]
            return 200

    @property
    def doors(self) -> list[Callable[[], int]]:
        return [self.rest, self.open_inference, self.as_a_key, self.grpc]

    def all_say(self, status: int) -> bool:
        return {door() for door in self.doors} == {status}


@pytest.fixture(scope="module")
def port() -> str:
    return str(free_port())


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, port: str):
    """An installation with two servers and a model."""
    folder: Path = tmp_path_factory.mktemp("people")
    with installed(folder / "data", MODELKEEP_SERVER__GRPC_PORT=port, MODELKEEP_SERVER__PROCESSES="2") as house:
        file = folder / "model.onnx"
        file.write_bytes(onnx_identity(onnx.helper.np_dtype_to_tensor_dtype(np.dtype("float32"))))
        with house.client() as client:
            client.push(file, "echo")
        yield house


def test_a_token_asks_at_every_door_until_its_session_ends(own: Installation, port: str) -> None:
    bob = Person(own, port, "bob", Role.PREDICTOR)
    eventually(lambda: bob.all_say(200), "every server knows who bob is")
    httpx.post(f"{own.url}/api/v1/auth/logout", headers=bob.bearer).raise_for_status()
    eventually(lambda: bob.all_say(401), "every server knows that bob has left")


def test_a_disabled_person_and_one_without_a_role_ask_nothing(own: Installation, port: str) -> None:
    eve, dan = Person(own, port, "eve", Role.PREDICTOR), Person(own, port, "dan", Role.PREDICTOR)
    eventually(lambda: eve.all_say(200) and dan.all_say(200), "every server knows them")
    with own.http() as admin:
        admin.post(f"/api/v1/users/{eve.id}/disable").raise_for_status()
        (grant,) = admin.get("/api/v1/grants", params={"subject_kind": "user", "subject": dan.id}).json()["items"]
        admin.delete(f"/api/v1/grants/{grant['id']}").raise_for_status()
    eventually(lambda: eve.all_say(401), "every server knows that eve may come in no more")
    eventually(lambda: dan.all_say(404), "for dan, there is no such model any more")
    assert httpx.get(f"{own.url}/api/v1/me", headers=dan.bearer).status_code == 200


def test_metrics_need_a_role_that_gives_them(own: Installation, port: str) -> None:
    for name, role, status in (("ann", Role.AUDITOR, 200), ("ben", Role.DEVELOPER, 403)):
        person = Person(own, port, name, role)
        eventually(
            lambda who=person, said=status: httpx.get(f"{own.url}/metrics", headers=who.bearer).status_code == said, name
        )
