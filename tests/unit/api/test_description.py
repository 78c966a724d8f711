"""What the OpenAPI document calls things, and that nothing is in it twice."""

import pytest

from modelkeep.api import asgi, description
from modelkeep.infra.description import Description


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("ModelAnswer", "Model"),
        ("NewModel", "NewModel"),
        ("Page_ModelAnswer_", "ModelPage"),
        ("MeAnswer", "Caller"),
        ("modelkeep__control__models__rules__State", "ModelState"),
        ("modelkeep__control__replays__rules__State", "ReplayState"),
    ],
)
def test_schemas_are_called_what_they_are(name: str, wire: str):
    assert description.schema_name(name) == wire


@pytest.mark.parametrize(
    "part",
    [
        Description("x", "", {"/api/v1/models": {}}),
        Description("x", "", {}, {"Model": {}}),
        Description("x", "", {}, {"Problem": {}}),
    ],
)
def test_what_is_described_twice_is_refused(part: Description):
    with pytest.raises(ValueError, match="described twice: "):
        asgi.document(lambda: (part,))


def test_the_door_is_asked_once_and_only_for_the_document():
    asked = []

    def door() -> tuple[Description, ...]:
        asked.append(1)
        return ()

    app = asgi.routes(door)
    assert asked == []
    assert app.openapi() is app.openapi()
    assert asked == [1]
