"""What Tab offers: names of models and deployments, and numbers of versions, from the server of the command line.

A shell waits for it, so it asks once and briefly; where nothing comes, nothing is offered and nothing is said. It asks with the
access token of a login as it is: what gets the next one is good for one use, and not for somebody who may be gone in a second.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from modelkeep.app.cli.kept import session_of

if TYPE_CHECKING:
    from modelkeep.client import Client

DEFAULT_URL = "http://127.0.0.1:8080"
PATIENCE_S = 1.0
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")  # what a shell would read as anything else is not handed to it


def trust(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the client that these options of `modelkeep` itself make: whom to trust, and what to show."""
    certificate, key = given.get("client_certificate") or "", given.get("client_key") or ""
    return {"verify": given.get("ca_file") or True, "certificate": (certificate, key) if key else certificate or None}


def model_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the models whose names begin so."""
    return _offered(ctx, incomplete, lambda client: [one.name for one in client.models()])


def archived_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the archived models whose names begin so."""
    return _offered(ctx, incomplete, lambda client: [one.name for one in client.models(archived=True) if one.archived_at])


def deployment_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the deployments whose names begin so."""
    return _offered(ctx, incomplete, lambda client: [one.name for one in client.deployments()])


def version_numbers(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the versions of the model that the line names, newest first."""
    model = ctx.params.get("name")
    return _offered(ctx, incomplete, lambda client: [str(one.number) for one in client.versions(str(model))]) if model else []


def _token_of(url: str) -> str | None:
    tokens = session_of(url).read()
    return tokens.access_token if tokens else None


def _offered(ctx: typer.Context, incomplete: str, ask: "Callable[[Client], Iterable[str]]") -> list[str]:
    from modelkeep.client import Client

    try:
        url = ctx.params.get("url") or DEFAULT_URL
        key = ctx.params.get("key") or _token_of(url)
        with Client(url, key, timeout=PATIENCE_S, retries=0, **trust(ctx.find_root().params)) as client:
            return [name for name in ask(client) if name.startswith(incomplete) and _NAME.fullmatch(name)]
    except Exception:  # noqa: BLE001 - whatever is wrong, somebody is only typing
        return []
