"""The OpenAPI document: valid, complete, with examples that are right, and with every code that can be answered."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import openapi_spec_validator
import pytest

import modelkeep
from fixtures.described import document, faults, operations, resolved
from modelkeep.contracts.errors import ModelkeepError, all_errors
from modelkeep.infra import cookies
from modelkeep.infra.problems import STATUS
from modelkeep.serving.dialects import tf_serving, vertex

LONGEST_SUMMARY = 100
UNANSWERED = {
    "modelkeep.api.console.ConsoleNotBuilt": "it is said where no operation is, to browsers",
    "modelkeep.api.errors.NoSuchRoute": "it is said where no operation is",
    "modelkeep.control.predictions.errors.PositionMoved": "the courier alone loads spools",
    "modelkeep.serving.edge.HostUnknown": "it is said before an operation is looked for",
    "modelkeep.serving.forward.ApiBroke": "its answer has begun: it is broken off",
    "modelkeep.serving.dialects.open_inference.grpc.InvalidMessage": "gRPC alone answers with it",
    "modelkeep.serving.grpc.conversation.Draining": "as above",
    "modelkeep.serving.grpc.door.NotRead": "as above",
    "modelkeep.serving.grpc.health.TooManyWatchers": "as above",
    "modelkeep.serving.grpc.places.TooManyRpcs": "as above",
}
"""Errors of the planes that no operation answers with, and why."""
ASK_FOR_SECRETS = {
    "setUp",
    "login",
    "refresh",
    "browserLogin",
    "browserRefresh",
    "browserLogout",
    "register",
    "setPassword",
    "finishSignOn",
    "finishTerminalSignOn",
    "loginWithDirectory",
    "loginBrowserWithDirectory",
}
"""Operations that need no key, and refuse what is in their body as they would a wrong one."""


def _media() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What goes in and out: an operation's name, where, and the media type's part of the document."""
    for _method, _path, operation in operations():
        name = operation["operationId"]
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            yield name, f"request {kind}", media
        for status, told in operation["responses"].items():
            for kind, media in resolved(told).get("content", {}).items():
                yield name, f"{status} {kind}", media


def test_the_document_is_valid():
    openapi_spec_validator.validate(document())
    assert document()["openapi"].startswith("3.1.")


def test_every_operation_has_a_name_for_programs_and_one_for_people():
    names = [operation["operationId"] for _method, _path, operation in operations()]
    assert len(names) == len(set(names)) > 50
    assert [name for name in names if not re.fullmatch(r"[a-z][A-Za-z0-9]{3,40}", name)] == []
    for _method, _path, operation in operations():
        assert 3 < len(operation["summary"]) <= LONGEST_SUMMARY, operation["operationId"]
        assert operation["description"]
        assert [tag for tag in operation["tags"] if tag not in {one["name"] for one in document()["tags"]}] == []


def test_every_parameter_and_every_answer_is_described():
    for _method, path, operation in operations():
        parameters = [resolved(one) for one in operation["parameters"]]
        assert [one["name"] for one in parameters if not one.get("description")] == [], operation["operationId"]
        assert {one["name"] for one in parameters if one["in"] == "path"} == set(re.findall(r"{(\w+)}", path))
        undescribed = [status for status, told in operation["responses"].items() if not resolved(told)["description"].strip()]
        assert undescribed == [], operation["operationId"]


def test_what_asks_for_a_key_says_how_it_refuses_and_everything_may_fail():
    for method, _path, operation in operations():
        answers = {status: resolved(told) for status, told in operation["responses"].items()}
        assert "500" in answers
        assert ("401" in answers) == bool(operation["security"]) or operation["operationId"] in ASK_FOR_SECRETS
        if "401" in answers:
            assert "WWW-Authenticate" in answers["401"]["headers"]
            assert "503" in answers
        scopes = {scope for way in operation["security"] for names in way.values() for scope in names}
        assert not scopes or "403" in answers
        keys = [{way: sorted(scopes)} for way in ("ApiKey", "Bearer")]
        page = {"Browser": sorted(scopes)} | ({} if method.lower() in {"get", "head"} else {"Csrf": []})
        alone = [] if operation["operationId"] == "getBrowserSession" else keys
        assert operation["security"] in ([], [*alone, page])


def test_what_a_page_sends_is_called_as_the_doors_call_it():
    schemes = document()["components"]["securitySchemes"]
    assert schemes.keys() == {"ApiKey", "Bearer", "Browser", "Csrf"}
    assert (schemes["Browser"]["in"], schemes["Browser"]["name"]) == ("cookie", cookies.ACCESS)
    assert (schemes["Csrf"]["in"], schemes["Csrf"]["name"].lower()) == ("header", cookies.CSRF_HEADER)


def test_every_example_is_as_its_schema_says():
    wrong = []
    seen = 0
    for name, schema in document()["components"]["schemas"].items():
        for example in schema.get("examples", []):
            seen += 1
            wrong += [f"{name}: {fault}" for fault in faults(schema, example)]
    for name, where, media in _media():
        examples = [one["value"] for one in media.get("examples", {}).values()]
        for example in [*examples, *([media["example"]] if "example" in media else [])]:
            seen += 1
            wrong += [f"{name} {where}: {fault}" for fault in faults(media["schema"], example)]
    for _method, _path, operation in operations():
        parts = [resolved(one) for one in operation["parameters"]]
        parts += [
            resolved(one) for told in operation["responses"].values() for one in resolved(told).get("headers", {}).values()
        ]
        for part in parts:
            if "example" in part:
                wrong += [f"{operation['operationId']}: {fault}" for fault in faults(part["schema"], part["example"])]
    assert wrong == []
    assert seen > 150


def test_every_body_of_json_shows_an_example():
    without = [
        f"{name} {where}"
        for name, where, media in _media()
        if where.endswith(("/json", "+json"))
        and not {"example", "examples"} & media.keys()
        and "examples" not in resolved(media["schema"])
    ]
    assert without == []


def test_a_wrong_example_would_be_found():
    assert faults({"$ref": "#/components/schemas/NewModel"}, {"name": 1}) == ["$.name: 1 is not of type 'string'"]


def test_schemas_have_the_names_of_things_and_all_are_used():
    names = set(document()["components"]["schemas"])
    assert [name for name in sorted(names) if not re.fullmatch(r"[A-Z][A-Za-z0-9]+", name) or name.endswith("Answer")] == []
    used = set(re.findall(r"#/components/schemas/(\w+)", str(document())))
    assert names - used == set()


def _answered() -> set[str]:
    """All codes that some operation may answer with."""
    found: set[str] = set()
    for _method, _path, operation in operations():
        for told in operation["responses"].values():
            found |= set(re.findall(r"^- `(\w+)`: ", resolved(told)["description"], re.MULTILINE))
    return found


def _errors() -> list[type[ModelkeepError]]:
    for module in pkgutil.walk_packages(modelkeep.__path__, "modelkeep."):
        elsewhere = module.name.startswith("modelkeep.plugins.")  # they raise what contracts name, and may lack their libraries
        if not (module.name.endswith("__main__") or ".migrations." in module.name or elsewhere):
            importlib.import_module(module.name)
    return list(all_errors())


@pytest.mark.parametrize("room", ["api", "control", "serving"])
def test_every_error_of_a_plane_is_an_answer_of_some_operation(room: str):
    answered = _answered()
    missing = {
        f"{error.__module__}.{error.__qualname__}"
        for error in _errors()
        if error.__module__.startswith(f"modelkeep.{room}.") and error.code not in answered
    }
    assert missing == {name for name in UNANSWERED if name.startswith(f"modelkeep.{room}.")}


def test_the_code_of_an_answer_goes_with_its_status():
    statuses = {}
    for error in _errors():
        statuses.setdefault(error.code, set()).add(STATUS[error.kind])
    for name, where, media in _media():
        if where.endswith("problem+json"):
            told = media["schema"]["allOf"][1]["properties"]
            for code in told["code"]["enum"]:
                assert told["status"]["const"] in statuses[code], (name, code)


@pytest.mark.parametrize(("name", "struct"), [("V1PredictRequest", tf_serving._Predict), ("VertexRequest", vertex._Body)])
def test_requests_whose_schemas_are_written_by_hand_have_the_fields_that_are_read(name: str, struct: type[msgspec.Struct]):
    assert document()["components"]["schemas"][name]["properties"].keys() == set(struct.__struct_fields__)
