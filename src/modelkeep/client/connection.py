"""One server, spoken to over HTTP: headers, errors as `ModelkeepError`, one repeat where a repeat is safe.

Nothing is read from the environment: no proxy, no credentials file. For https the system's certificates are trusted, or those
in the file given as `verify`.
"""

import json
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from modelkeep.client.errors import Invalid, NotAuthenticated, ServerUnreachable, TimedOut, error_from, not_modelkeep

_SAFE = frozenset({"GET", "HEAD", "PUT", "DELETE"})


class Connection:
    """Sends requests to one server. May be shared between threads."""

    def __init__(self, url: str, api_key: str | None, timeout: float, *, verify: bool | str) -> None:
        self.url = _checked(url)
        self.timeout = timeout
        headers = {"accept": "application/json"}
        if api_key:
            headers["x-api-key"] = _checked_key(api_key)
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=timeout,
            trust_env=False,
            verify=_trust(verify) if self.url.startswith("https:") else False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def document(self, method: str, path: str, *, repeat: bool = False, **request: Any) -> Any:  # noqa: ANN401 - JSON
        """Send a request and return the JSON of its answer (None for an empty one); raises the error it tells of.

        A request that changes nothing, or that the caller says may be repeated, is sent once more if the connection breaks.
        """
        try:
            return self._once(method, path, request)
        except ServerUnreachable as error:
            if error.code != "connection_lost" or not (repeat or method in _SAFE):
                raise
        return self._once(method, path, request)

    def _once(self, method: str, path: str, request: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        with self.faults():
            response = self._http.request(method, path, **request)
        if not response.is_success:
            raise error_from(response)
        if not response.content:
            return None
        if "json" not in response.headers.get("content-type", ""):
            raise not_modelkeep(response)
        return response.json()

    @contextmanager
    def stream(self, path: str, *, timeout: float | None = None, **request: Any) -> Iterator[httpx.Response]:  # noqa: ANN401
        """Open a GET whose answer is read as it comes."""
        limit = httpx.Timeout(self.timeout, read=timeout or self.timeout)
        with self.faults(), self._http.stream("GET", path, timeout=limit, **request) as response:
            if not response.is_success:
                response.read()
                raise error_from(response)
            yield response

    def events(self, path: str, *, timeout: float) -> Iterator[Any]:
        """Yield the JSON data of server-sent events until the server ends the stream."""
        with self.stream(path, timeout=timeout, headers={"accept": "text/event-stream"}) as response:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise not_modelkeep(response)
            for line in response.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    def answers(self, path: str) -> bool:
        """Whether a GET succeeds now; raises `NotAllowed` where the key may not ask."""
        with self.faults():
            response = self._http.get(path)
        if response.status_code == httpx.codes.FORBIDDEN:
            raise error_from(response)
        return response.is_success

    def status(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON that a health check answers, whether it says yes or no."""
        with self.faults():
            response = self._http.get(path)
        if "json" not in response.headers.get("content-type", ""):
            raise not_modelkeep(response)
        return response.json()

    def await_return(self, *, within: float) -> None:
        """Wait until a server that went away answers again; raises `ServerUnreachable` when it does not."""
        deadline = time.monotonic() + within
        while True:
            try:
                with self.faults():
                    self._http.get("/healthz")
            except ServerUnreachable:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Say what a failed exchange means, and what to try."""
        try:
            yield
        except httpx.ConnectTimeout as error:
            message = f"{self.url} did not answer within {self.timeout:g} s. Check the address, or a firewall between."
            raise ServerUnreachable(message) from error
        except httpx.ConnectError as error:
            raise ServerUnreachable(_why_no_connection(self.url, error)) from error
        except httpx.TimeoutException as error:
            message = f"{self.url} took the request but gave no answer in time. Try again, or allow a longer timeout."
            raise TimedOut(message) from error
        except httpx.LocalProtocolError as error:
            message = f"The request could not be sent: {error}. A file that changes while it is read is one reason."
            raise Invalid(message, code="request_unsendable") from error
        except httpx.RemoteProtocolError as error:
            raise ServerUnreachable(_why_no_answer(self.url, error), code=_protocol_code(error)) from error
        except httpx.TransportError as error:
            message = f"The connection to {self.url} broke before the answer came. Try again; the server may be restarting."
            raise ServerUnreachable(message, code="connection_lost") from error


def _checked(url: str) -> str:
    """Return the address in full: `localhost:8080` means http."""
    text = url.strip()
    if "://" not in text:
        text = f"http://{text}"
    try:
        parsed = urlsplit(text)
        usable = parsed.scheme in {"http", "https"} and bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise Invalid(f"{url!r} is no address of a server; write it like http://127.0.0.1:8080.", code="invalid_url")
    return text.rstrip("/")


def _checked_key(api_key: str) -> str:
    key = api_key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise NotAuthenticated("The API key has characters that no key has; was it copied whole? Keys begin with mk_.")
    return key


def _trust(verify: bool | str) -> ssl.SSLContext | bool:  # noqa: FBT001 - as httpx and requests spell it
    if verify is False:
        return False
    try:
        return ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    except OSError as error:
        raise Invalid(f"The certificates in {verify} cannot be read: {error}.", code="file_unreadable") from error


def _why_no_connection(url: str, error: httpx.ConnectError) -> str:
    said = str(error).lower()
    if "wrong_version_number" in said or "record layer" in said:
        return f"{url} does not speak TLS. Use http:// instead of https://."
    if "certificate" in said:
        return f"The certificate of {url} is not trusted here. Give the file with your organisation's certificates."
    if "name or service not known" in said or "name resolution" in said or "nodename" in said:
        return f"The host name in {url} is not known here. Check its spelling."
    return f"No server answers at {url}. Is `modelkeep serve` running there, and is the port right?"


def _protocol_code(error: httpx.RemoteProtocolError) -> str:
    return "connection_lost" if "disconnected" in str(error) or "peer closed" in str(error) else "not_modelkeep"


def _why_no_answer(url: str, error: httpx.RemoteProtocolError) -> str:
    if _protocol_code(error) == "connection_lost":
        return f"The server at {url} closed the connection without an answer. Try again; it may be restarting."
    return f"Something answers at {url}, but it does not speak HTTP. Check the address and the port."
