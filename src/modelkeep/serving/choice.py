"""Which deployment is meant by a request whose path names none, and which version of it."""

from collections.abc import Callable, Mapping

from modelkeep.contracts.errors import NotFound
from modelkeep.serving.messages import Request
from modelkeep.serving.view import View

HEADER = b"x-modelkeep-model"
VERSION = b"x-modelkeep-version"
"""The header that names a version, by number or alias, in every dialect."""


class ModelNeeded(NotFound):
    """Several models answer here: name one with `?model=NAME` or `X-Modelkeep-Model`, or set `serving.default_model`."""

    code = "model_needed"


class Choice:
    """What a request names in its query or header, else its host's or the installation's own, else the only one there is.

    `hosts`: deployments by the names of hosts, which are compared without port and case.
    """

    def __init__(self, view_of: Callable[[Request], View], default: str, hosts: Mapping[str, str]) -> None:
        self._view_of = view_of
        self._default = default
        self._hosts = {host_name(host): name for host, name in hosts.items()}

    def named(self, request: Request) -> str:
        """Return the deployment that the request or the settings name, or "" for none."""
        header = request.header(HEADER)
        return request.query("model") or (header.decode("latin-1") if header else "") or self._of_host(request)

    def of(self, request: Request) -> str:
        """Return the deployment; raises `ModelNeeded` where there are several, `NotFound` where there is none."""
        return self.named(request) or self._only(request)

    def unnamed(self, request: Request) -> str:
        """Return the deployment that is meant where the request names none; raises as `of` does."""
        return self._of_host(request) or self._only(request)

    def _of_host(self, request: Request) -> str:
        host = request.header(b"host") if self._hosts else None
        return self._hosts.get(host_name(host.decode("latin-1")), self._default) if host else self._default

    def _only(self, request: Request) -> str:
        routes = self._view_of(request).routes()
        if len(routes) == 1:
            return next(iter(routes))
        raise ModelNeeded if routes else NotFound("No model answers here yet: push one first.")


def version_asked(request: Request, said: str | None = None) -> str | None:
    """Return the version that is asked for: what path, query or message say, else the header; None for the promoted one."""
    if said is not None:
        return said
    named = request.headers.get(VERSION)
    return named.decode("latin-1") if named else None


def host_name(host: str) -> str:
    """Return a host as names are compared: in small letters, without port, brackets and the dot of the root."""
    name, bracket, _port = host.strip().lower().partition("]")
    if bracket:
        return name.removeprefix("[")
    return (name if name.count(":") > 1 else name.partition(":")[0]).removesuffix(".")
