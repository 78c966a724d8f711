"""The messages of gRPC are those that protoc makes of their description, and those that a client has on the wire."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor
from tritonclient.grpc import service_pb2

from modelkeep.serving.protos import open_inference_pb2 as pb

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "src/modelkeep/serving/protos"
OURS_ALONE = {"ModelMetadataResponse.properties"}  # of the published description; this client does not know it


@pytest.mark.parametrize("name", ["open_inference_pb2.py", "open_inference_pb2.pyi"])
def test_the_messages_are_as_protoc_makes_them(tmp_path: Path, name: str) -> None:
    make = ["make", "-s", "messages", f"PROTOC={sys.executable} -m grpc_tools.protoc", f"OUT={tmp_path}"]
    subprocess.run(make, cwd=ROOT, check=True, env={"PATH": os.environ["PATH"]})
    assert (FOLDER / name).read_text() == (tmp_path / name).read_text(), "run `make protos`"


def _differences(ours: Descriptor, theirs: Descriptor) -> list[str]:
    found = []
    for field in ours.fields:
        other = theirs.fields_by_name.get(field.name)
        if other is None or (other.number, other.type, other.is_repeated) != (field.number, field.type, field.is_repeated):
            found.append(f"{ours.name}.{field.name}")
    for nested in ours.nested_types:
        if nested.name in theirs.nested_types_by_name:
            found += _differences(nested, theirs.nested_types_by_name[nested.name])
    return found


def test_every_field_has_the_number_and_the_type_that_a_client_knows() -> None:
    pool = service_pb2.DESCRIPTOR.pool
    found = [
        different
        for name, message in pb.DESCRIPTOR.message_types_by_name.items()
        for different in _differences(message, pool.FindMessageTypeByName(f"inference.{name}"))
    ]
    assert set(found) == OURS_ALONE
    ours, theirs = pb.DataType.DESCRIPTOR.values_by_name, pool.FindEnumTypeByName("inference.DataType").values_by_name
    assert {name: one.number for name, one in ours.items()} == {name: one.number for name, one in theirs.items()}


def test_every_rpc_takes_and_answers_what_a_client_sends_and_reads() -> None:
    (service,) = pb.DESCRIPTOR.services_by_name.values()
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert service.full_name == "inference.GRPCInferenceService"
    for rpc in service.methods:
        other = theirs[rpc.name]
        assert (rpc.input_type.full_name, rpc.output_type.full_name, rpc.client_streaming, rpc.server_streaming) == (
            other.input_type.full_name,
            other.output_type.full_name,
            other.client_streaming,
            other.server_streaming,
        )
