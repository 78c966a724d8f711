"""Parts of the OpenAPI document: what structs become, and how refusals are put together."""

import msgspec

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import Conflict, Limited, NotFound, Stale, Unauthenticated
from modelkeep.infra import description


class _Part(msgspec.Struct):
    """A part."""

    value: object
    name: str | None = None


class _Told(msgspec.Struct, omit_defaults=True):
    parts: list[_Part]
    note: str | None = None
    count: int = 0


def test_structs_have_the_names_that_are_given_wherever_they_stand():
    found = description.schemas({"Told": _Told, "Part": _Part})
    assert found.keys() == {"Told", "Part"}
    assert found["Told"]["properties"]["parts"]["items"] == {"$ref": "#/components/schemas/Part"}
    assert found["Part"]["description"] == "A part."
    assert found["Part"]["properties"]["value"] == {}


def test_what_is_never_written_as_null_is_not_said_to_be_null():
    found = description.schemas({"Told": _Told, "Part": _Part})
    assert found["Told"]["properties"]["note"] == {"type": "string"}
    assert found["Told"]["properties"]["count"] == {"type": "integer"}
    assert {"type": "null"} in found["Part"]["properties"]["name"]["anyOf"]


def test_refusals_stand_by_status_with_every_code_once():
    found = description.refusals([Stale, Conflict, NotFound, NotFound])
    assert list(found) == ["404", "409"]
    content = found["409"]["content"]["application/problem+json"]
    assert content["schema"]["allOf"][1]["properties"] == {"status": {"const": 409}, "code": {"enum": ["conflict", "stale"]}}
    assert content["example"]["code"] == "conflict"
    assert found["404"]["description"] == "- `not_found`: There is nothing here by that name."


def test_refusals_say_when_to_come_again_and_how_to_say_who_one_is():
    found = description.refusals([Limited, Unauthenticated])
    assert found["429"]["headers"].keys() == {"X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy"}
    assert found["401"]["headers"].keys() == {"X-Request-ID", "WWW-Authenticate"}


def test_a_key_opens_by_either_way_what_its_scope_says():
    assert description.security(Scope.PREDICT) == [{"ApiKey": ["predict"]}, {"Bearer": ["predict"]}]
    assert description.security(None) == []
