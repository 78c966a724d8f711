"""The OpenAPI document of the whole installation: the control plane's routes, and what the predict door answers by itself."""

import json
from collections.abc import Iterable

from modelkeep.infra.description import Description, Document


def door() -> Iterable[Description]:
    """Return what the predict door says of itself; its code is loaded for this alone, by whoever is asked."""
    from modelkeep.serving import description

    return description.door()


def document() -> Document:
    """Return the document."""
    from modelkeep.api import asgi

    return asgi.document(door)


def text() -> str:
    """Return the document as a file: in a fixed order, so that what is new in it can be seen."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
