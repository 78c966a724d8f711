"""Who may ask from where: the hosts that this server answers for, and the origins whose pages may read its answers.

A page of somebody else's, in a browser behind the firewall, can let its own name lead to this server and so ask as if it were
one of its pages (DNS rebinding). Its requests still name its own host, and are refused for that.
"""

import ipaddress
import socket
from collections.abc import Iterable
from typing import ClassVar, Final

from modelkeep.contracts.errors import Kind, ModelkeepError
from modelkeep.serving.choice import host_name
from modelkeep.serving.messages import Request, Response

ANY: Final = "*"
_LOCAL: Final = "localhost"
_MOST_KNOWN: Final = 1024
_LONGEST_KNOWN: Final = 256
_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_SHOWN: Final = b"x-request-id, x-prediction-id, retry-after, ratelimit, ratelimit-policy, etag, location, idempotency-replayed"
_A_DAY: Final = b"86400"
_VARY: Final = (b"vary", b"origin")


class HostUnknown(ModelkeepError):
    """This server answers for no such host. An administrator can name it in `server.hosts`."""

    kind: ClassVar[Kind] = Kind.MISDIRECTED
    code: ClassVar[str] = "host_unknown"


class Edge:
    """The hosts and origins of one installation.

    `hosts`: names, `*.example.org` for all of a domain, or `*` for any. Addresses, `localhost` and this machine's own name
    are always answered for. `origins`: those of other pages, in full (`https://app.example.org`).
    """

    def __init__(self, hosts: Iterable[str] = (ANY,), origins: Iterable[str] = ()) -> None:
        self._hosts = frozenset(host_name(host) for host in hosts if host.strip())
        self._own = frozenset({_LOCAL, *_of_this_machine()})
        self._certified: frozenset[str] = frozenset()
        self.origins = frozenset(origin.strip().encode() for origin in origins if origin.strip())
        self.known: set[bytes | None] = set()
        """`Host` headers that were found to be right: whoever asks often looks here first, and calls `check` for others."""

    def certify(self, names: frozenset[str]) -> None:
        """Also answer for the names of a certificate, and no longer for those of the one before."""
        self._certified = names
        self.known.clear()

    def check(self, request: Request) -> None:
        """Raise `HostUnknown` where a request is meant for another server."""
        given = request.headers.get(b"host")
        if given in self.known:
            return
        if not self._answers_for(host_name(given.decode("latin-1")) if given else ""):
            raise HostUnknown
        if given is None or len(given) <= _LONGEST_KNOWN:
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()  # strangers' must not keep out those that are asked for
            self.known.add(given)

    def beside(self, request: Request) -> tuple[tuple[bytes, bytes], ...]:
        """Return the headers that let the asking page read the answer; none where its origin is not allowed."""
        origin = request.headers.get(b"origin")
        if origin not in self.origins or origin is None:
            return ()
        return ((b"access-control-allow-origin", origin), (b"access-control-expose-headers", _SHOWN), _VARY)

    def preflight(self, request: Request) -> Response | None:
        """Return the answer to a browser that asks whether a page of an allowed origin may ask; None for all else."""
        if request.method != "OPTIONS" or request.headers.get(b"origin") not in self.origins:
            return None
        if b"access-control-request-method" not in request.headers:
            return None
        allowed = [(b"access-control-allow-methods", _METHODS), (b"access-control-max-age", _A_DAY)]
        wished = request.headers.get(b"access-control-request-headers")
        if wished:
            allowed.append((b"access-control-allow-headers", wished))
        answer = Response(204, b"")
        answer.headers = allowed  # of no body, not even its length
        return answer

    def _answers_for(self, host: str) -> bool:
        """Whether a request for this host is ours. Without one it comes from no browser."""
        if not host or ANY in self._hosts or host in self._own or _is_address(host):
            return True
        every = f"*.{host.partition('.')[2]}"
        return not self._hosts.isdisjoint({host, *_above(host)}) or not self._certified.isdisjoint({host, every})


def _above(host: str) -> Iterable[str]:
    """`*.b.c` and `*.c` for `a.b.c`."""
    parts = host.split(".")
    return (f"*.{'.'.join(parts[at:])}" for at in range(1, len(parts)))


def _of_this_machine() -> tuple[str, str]:
    name = socket.gethostname().lower()
    return name, name.partition(".")[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
