"""What needs two people, as two people type it; and over gRPC, which passes it on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest

from fixtures.artifacts import onnx_identity
from fixtures.installation import Installation, free_port, installed
from modelkeep.client import ApprovalNeeded, Client
from modelkeep.serving.protos import open_inference_pb2 as messages

PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory):
    """An installation in which nobody promotes or removes alone."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "model.onnx").write_bytes(onnx_identity(onnx.helper.np_dtype_to_tensor_dtype(np.dtype("float32"))))
    port = str(free_port())
    two = {"MODELKEEP_ACCESS__TWO_PERSON": "promotion, deletion", "MODELKEEP_SERVER__GRPC_PORT": port}
    with installed(folder / "data", **two) as house:
        yield house


@pytest.fixture(scope="module")
def bob(guarded: Installation) -> str:
    """The access token of another administrator."""
    with guarded.http() as admin:
        made = admin.post("/api/v1/users", json={"name": "bob", "email": "bob@example.org", "role": "admin"})
        link = admin.post(f"/api/v1/users/{made.raise_for_status().json()['id']}/reset-password").raise_for_status().json()
        admin.post("/api/v1/auth/reset-password", json={"token": link["token"], "password": PASSWORD}).raise_for_status()
        given = admin.post("/api/v1/auth/login", json={"email": "bob@example.org", "password": PASSWORD})
        return str(given.raise_for_status().json()["access_token"])


def typed(house: Installation, *arguments: str, key: str = "") -> subprocess.CompletedProcess[str]:
    """What comes of a command of this person's, the first administrator unless a key says other."""
    environment = {"PATH": os.environ["PATH"], "MODELKEEP_URL": house.url, "MODELKEEP_API_KEY": key or house.key}
    command = [sys.executable, "-m", "modelkeep.app.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=house.data.parent, env=environment)


def test_commands_say_what_to_do_and_another_person_does_it(guarded: Installation, bob: str):
    pushed = typed(guarded, "push", "model.onnx", "--name", "echo")
    assert "No version answers yet. To change that:  modelkeep promote echo 1" in pushed.stdout, pushed
    asked = typed(guarded, "promote", "echo", "1")
    assert (asked.returncode, asked.stdout) == (7, "")
    assert "approval_needed" in asked.stderr
    assert "Then repeat this command." in asked.stderr
    wanted = json.loads(typed(guarded, "promote", "echo", "1", "--json").stderr)["approval"]
    assert f"`modelkeep approvals approve {wanted}`" in asked.stderr

    own = typed(guarded, "approvals", "approve", wanted)
    assert (own.returncode, "Somebody else approves it" in own.stderr) == (5, True)
    assert wanted in typed(guarded, "approvals", "list", "--state", "pending", key=bob).stdout
    given = typed(guarded, "approvals", "approve", wanted, key=bob)
    assert given.stdout.startswith("Approved: Promote echo to version 1; none answers now. admin repeats"), given
    done = typed(guarded, "promote", "echo", "1")
    assert done.stdout == "echo version 1 answers now.\n", done
    shown = typed(guarded, "approvals", "show", wanted).stdout
    assert "state        used" in shown
    assert "approved by  bob, " in shown

    again = typed(guarded, "push", "model.onnx", "--name", "echo", "--promote")
    assert again.returncode == 7
    assert "echo version 2 is ready; later: `modelkeep promote echo 2`." in again.stderr
    (pending,) = json.loads(typed(guarded, "approvals", "list", "--state", "pending", "--json").stdout)
    refused = typed(guarded, "approvals", "refuse", pending["id"], "--reason", "not today", key=bob)
    assert refused.stdout == "Refused: Promote echo to version 2; version 1 answers now.\n"
    assert typed(guarded, "approvals", "approve", pending["id"], key=bob).returncode == 7
    assert typed(guarded, "approvals", "show", "apr_none").returncode == 3
    assert typed(guarded, "approvals", "list", "--state", "lost").returncode == 2


def test_the_client_and_grpc_say_the_same(guarded: Installation, bob: str):
    with guarded.client() as client:
        client.push(guarded.data.parent / "model.onnx", "other")
        with pytest.raises(ApprovalNeeded) as needed:
            client.promote("other", 1)
        with Client(guarded.url, bob) as another:
            assert another.approval(needed.value.approval).asked_by_name == "admin"
            assert another.approve(needed.value.approval).state == "approved"
        assert client.promote("other", 1).version == 1
        assert [one.state for one in client.approvals(limit=1)] == ["used"]
    unload = messages.RepositoryModelUnloadRequest(model_name="other")
    with grpc.insecure_channel(f"127.0.0.1:{guarded.grpc_port}") as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/RepositoryModelUnload",
            request_serializer=messages.RepositoryModelUnloadRequest.SerializeToString,
            response_deserializer=messages.RepositoryModelUnloadResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as refused:
            call(unload, metadata=[("x-api-key", guarded.key)], timeout=30)
    assert "apr_" in refused.value.details()
    with guarded.client() as client:
        assert client.model("other").archived_at is None


def test_a_model_folder_is_the_installations_own(tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(onnx_identity(onnx.helper.np_dtype_to_tensor_dtype(np.dtype("float32"))))
    environment = {"MODELKEEP_ACCESS__TWO_PERSON": "promotion", "MODELKEEP_SERVER__MODEL_FOLDER": str(folder)}
    with installed(tmp_path / "data", **environment) as house, house.client() as client:
        client.wait_serving("model", 1)
        assert client.approvals() == []
