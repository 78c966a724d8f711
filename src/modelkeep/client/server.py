"""One server, and how it is asked: paths, repeats, lists, and answers as JSON. Every function here is steps, not I/O."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit
from uuid import uuid4

import httpx

from modelkeep.client.errors import (
    Invalid,
    NotAuthenticated,
    NotFound,
    ServerUnreachable,
    TimedOut,
    Unavailable,
    error_from,
    not_modelkeep,
)
from modelkeep.client.login import Login
from modelkeep.client.retries import may_repeat, pause_before
from modelkeep.client.steps import Ask, Lines, Pause, Save, Steps, Work

API = "/api/v1"
_SAFE = frozenset({"GET", "HEAD"})
_PAGE = 200
_LARGEST_PAGE = 500
T = TypeVar("T")


@dataclass(frozen=True)
class Server:
    """Where it is, how many seconds to wait for an answer, how often to try once more, and the login to ask with, if any."""

    url: str
    timeout: float
    retries: int
    login: Login | None = None

    def answered(self, step: Ask | Lines | Save) -> Steps[httpx.Response]:
        """Send a request, whatever becomes of it; where its access token is refused, once more with the next one."""
        ask = step if isinstance(step, Ask) else step.ask
        login = None if ask.anonymous else self.login
        if login is not None and login.due:
            yield Work(login.renew)
        sent = "" if login is None else login.access_token
        response: httpx.Response = yield step
        if sent and login is not None and _refused(response) and (yield Work(partial(login.renew, sent))):
            response = yield step
        return response

    def exchange(self, step: Ask | Save) -> Steps[httpx.Response]:
        """Send a request and return a successful answer; raises the error that another one tells of.

        What may pass is tried again, `retries` times and for `timeout` seconds at most.
        """
        ask = step if isinstance(step, Ask) else step.ask
        began, harmless = time.monotonic(), ask.repeat or ask.method in _SAFE
        attempt = 0
        while True:
            try:
                response = yield from self.answered(step)
                refused = None if response.is_success else error_from(response)
            except ServerUnreachable as error:
                refused = error
            if refused is None:
                return response
            attempt += 1
            pause = pause_before(attempt, refused.retry_after_s)
            late = time.monotonic() + pause - began > self.timeout
            over = late or attempt > self.retries or (ask.end_when_lost and refused.code == "connection_lost")
            if over or not may_repeat(refused, harmless=harmless):
                raise refused
            yield Pause(pause)

    def document(self, method: str, path: str, body: object = None, **more: Any) -> Steps[Any]:  # noqa: ANN401 - fields of `Ask`
        """Return the JSON of an answer (None for an empty one). `path` is below the API; `body` is sent as JSON.

        What changes something carries a fresh `Idempotency-Key`, so that it may be sent again.
        """
        if method not in _SAFE and not more.get("repeat"):
            more |= {"repeat": True, "headers": {"idempotency-key": uuid4().hex, **more.get("headers", {})}}
        if body is not None:
            more["content"] = json.dumps(body, separators=(",", ":")).encode()
            more["headers"] = {"content-type": "application/json", **more.get("headers", {})}
        response = yield from self.exchange(Ask(method, API + path, **more))
        if not response.content:
            return None
        return _json(response)

    def get(self, path: str) -> Steps[Any]:
        """Return the JSON that a GET answers."""
        return self.document("GET", path)

    def items(
        self, path: str, read: Callable[[Mapping[str, Any]], T], *, most: int | None = None, **query: object
    ) -> Steps[list[T]]:
        """Return the first `most` entries of a list, or all of them, page by page."""
        params: dict[str, object] = {"limit": _PAGE if most is None else max(1, min(most, _LARGEST_PAGE)), **query}
        found: list[T] = []
        while True:
            page = yield from self.document("GET", path, params=params)
            found += [read(one) for one in islice(page["items"], None if most is None else most - len(found))]
            if page.get("next_cursor") is None or len(found) == most:
                return found
            params["cursor"] = page["next_cursor"]

    def saved(self, path: str, step: Callable[[Ask], Save], **more: Any) -> Steps[None]:  # noqa: ANN401 - fields of `Ask`
        """Have the body of a GET written down as it comes."""
        yield from self.exchange(step(Ask("GET", API + path, end_when_lost=True, **more)))

    def events(self, path: str, take: Callable[[Any], bool], *, silence: float) -> Steps[None]:
        """Hand the JSON data of server-sent events to `take` until it returns True, or the server ends the stream.

        Raises `TimedOut` when nothing comes for `silence` seconds.
        """

        def line(text: str) -> bool:
            return text.startswith("data:") and take(json.loads(text.removeprefix("data:")))

        ask = Ask("GET", API + path, headers={"accept": "text/event-stream"})
        response = yield from self.answered(Lines(ask, line, silence))
        if not response.is_success:
            raise error_from(response)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise not_modelkeep(response)

    def answering(self, deployment: str, version: str | None = None) -> Steps[Mapping[str, Any] | None]:
        """Return what answers predictions now, by a version's alias or number if one is given; None where nothing does."""
        params = {"model": deployment} | ({} if version is None else {"version": version})
        response = yield from self.answered(Ask("GET", "/info", params=params))
        if response.is_success:
            found: Mapping[str, Any] = _json(response)
            return found
        error = error_from(response)
        if isinstance(error, NotFound | Unavailable):
            return None
        raise error

    def status(self, path: str) -> Steps[Any]:
        """Return the JSON that a health check answers, whether it says yes or no."""
        response = yield Ask("GET", path, anonymous=True)
        return _json(response)

    def returned(self) -> Steps[None]:
        """Wait until a server that went away answers again; raises `ServerUnreachable` when it does not in time."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                yield Ask("GET", "/healthz", anonymous=True)
            except ServerUnreachable:
                if time.monotonic() >= deadline:
                    raise
                yield Pause(0.2)
            else:
                return


def growing(first: float, most: float) -> Iterator[float]:
    """Yield pauses, each half as long again as the one before."""
    pause = first
    while True:
        yield pause
        pause = min(pause * 1.5, most)


def until(
    look: Callable[[], Steps[T]],
    enough: Callable[[T], bool],
    late: Callable[[T], str],
    *,
    timeout: float,
    pauses: Iterator[float],
) -> Steps[T]:
    """Look again and again until it is enough; raises `TimedOut` with what `late` says when that takes too long."""
    deadline = time.monotonic() + timeout
    while True:
        seen = yield from look()
        if enough(seen):
            return seen
        if time.monotonic() >= deadline:
            raise TimedOut(late(seen))
        yield Pause(next(pauses))


def address(url: str) -> str:
    """Return the address of a server in full: `localhost:8080` means http."""
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


def part(name: str) -> str:
    """Return a name as one part of a path."""
    if not name or name in {".", ".."}:
        raise Invalid(f"{name!r} is no name.", code="invalid_name")
    return quote(name, safe="")


def model_path(name: str) -> str:
    """Return the path of a model."""
    return f"/models/{part(name)}"


def version_path(name: str, number: int) -> str:
    """Return the path of a version."""
    return f"{model_path(name)}/versions/{int(number)}"


def if_match(revision: int | None) -> dict[str, str]:
    """Return the header that makes a change depend on the revision that was seen."""
    return {} if revision is None else {"if-match": f'"{revision}"'}


def _refused(response: httpx.Response) -> bool:
    """Whether the credentials that came along are good no more."""
    return response.status_code == HTTPStatus.UNAUTHORIZED and error_from(response).code == NotAuthenticated.default_code


def _json(response: httpx.Response) -> Any:  # noqa: ANN401 - JSON
    if "json" not in response.headers.get("content-type", ""):
        raise not_modelkeep(response)
    try:
        return response.json()
    except ValueError as error:
        raise not_modelkeep(response) from error
