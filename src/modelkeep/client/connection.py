"""Runs the steps of operations against one server over HTTP: `Connection` blocks, `AsyncConnection` awaits.

Nothing is read from the environment: no proxy, no credentials file. For https the system's certificates are trusted, or those
in the file given as `verify`.
"""

import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from time import sleep
from typing import Any, NamedTuple, TypeVar, cast

import anyio
import httpx

from modelkeep.client.errors import Invalid, ModelkeepError, NotAuthenticated, ServerUnreachable, TimedOut
from modelkeep.client.identity import Tokens
from modelkeep.client.login import InMemory, Keeper, Login
from modelkeep.client.server import Server, address
from modelkeep.client.sessions import exchanged
from modelkeep.client.steps import Ask, Lines, Pause, Save, Step, Steps, Together, Work

T = TypeVar("T")
_PIECE = 256 * 1024
_REFRESH_S = 30.0
"""How long to wait for new tokens at least: where the answer is not heard, the session is lost."""
_SHOW_ONE = "{} answers only who shows it a certificate that it trusts."
_KNOWN = (ModelkeepError, OSError)  # what an operation may want to hear of


class Trust(NamedTuple):
    """Whom to trust over https, and what to show of oneself.

    `verify`: the system's certificates, those in a file, or anybody. `certificate`: a PEM file with certificate and key, or one
    for each.
    """

    verify: bool | str = True
    certificate: str | tuple[str, str] | None = None

    def context(self) -> ssl.SSLContext:
        """Return it as httpx takes it; raises `Invalid` for files that cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.verify if isinstance(self.verify, str) else None)
        except OSError as error:
            raise Invalid(f"The certificates in {self.verify} cannot be read: {error}.", code="file_unreadable") from error
        if self.verify is False:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            file, key = (self.certificate, None) if isinstance(self.certificate, str) else self.certificate
            try:
                context.load_cert_chain(file, key, password=lambda: "")
            except OSError as error:
                named = " and ".join(filter(None, (file, key)))
                raise Invalid(
                    f"{named} cannot be used as a certificate and its key: {error}.", code="file_unreadable"
                ) from error
        return context


class Caller(NamedTuple):
    """Who asks: whose key it is, or else whoever has logged in; `session` is where that is kept, if not in memory."""

    api_key: str | None = None
    session: Keeper | None = None


class _Line:
    """What both have: the address, how long to wait, the headers of every request, and what a failed exchange means."""

    def __init__(self, url: str, caller: Caller, timeout: float, retries: int, trust: Trust) -> None:
        where, login = address(url), None
        if not caller.api_key:
            login = Login(caller.session or InMemory(), partial(_refreshed, where, timeout, trust))
        self.server = Server(where, timeout, retries, login)

    def _options(self, api_key: str | None, trust: "Trust") -> dict[str, Any]:
        """Return what httpx needs to know; the key is kept nowhere else."""
        headers = {"accept": "application/json"}
        if api_key:
            headers["x-api-key"] = _checked_key(api_key)
        return {
            "base_url": self.url,
            "headers": headers,
            "timeout": self.server.timeout,
            "trust_env": False,
            "verify": trust.context() if self.url.startswith("https:") else False,
        }

    @property
    def url(self) -> str:
        """The server's address."""
        return self.server.url

    def _request(self, http: "httpx.Client | httpx.AsyncClient", ask: Ask, silence: float | None = None) -> httpx.Request:
        """Return a request without its form; `silence`: seconds to wait for each piece of the answer."""
        read = max(self.server.timeout, ask.patience) if silence is None else silence
        return http.build_request(
            ask.method,
            ask.path,
            params=ask.params or None,
            headers={**ask.headers, **self._signed(ask)},
            content=ask.content,
            timeout=httpx.Timeout(self.server.timeout, read=read),
        )

    def _signed(self, ask: Ask) -> dict[str, str]:
        token = "" if ask.anonymous or self.server.login is None else self.server.login.access_token
        return {"authorization": f"Bearer {token}"} if token else {}

    @contextmanager
    def _form(self, http: "httpx.Client | httpx.AsyncClient", ask: Ask) -> Iterator[httpx.Request]:
        """Yield a request whose form is read as it goes out."""
        if ask.parts is None:
            yield self._request(http, ask)
            return
        with ask.parts() as parts:
            form = httpx.Request(ask.method, self.url, files=parts)
            request = self._request(http, ask)
            for name in ("content-type", "content-length", "transfer-encoding"):
                if name in form.headers:
                    request.headers[name] = form.headers[name]
                elif name in request.headers:
                    del request.headers[name]
            request.stream = _Pieces(cast("Iterable[bytes]", form.stream), ask)
            yield request

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Say what a failed exchange means, and what to try."""
        try:
            yield
        except httpx.ConnectTimeout as error:
            message = f"{self.url} did not answer within {self.server.timeout:g} s. Check the address, or a firewall between."
            raise ServerUnreachable(message) from error
        except httpx.ConnectError as error:
            message, passing = _why_no_connection(self.url, error)
            raise ServerUnreachable(message, passing=passing) from error
        except httpx.TimeoutException as error:
            message = f"{self.url} took the request but gave no answer in time. Try again, or allow a longer timeout."
            raise TimedOut(message) from error
        except httpx.LocalProtocolError as error:
            message = f"The request could not be sent: {error}. A file that changes while it is read is one reason."
            raise Invalid(message, code="request_unsendable") from error
        except httpx.RemoteProtocolError as error:
            lost = _lost(error)
            code = "connection_lost" if lost else "not_modelkeep"
            raise ServerUnreachable(_why_no_answer(self.url, lost=lost), code=code, passing=lost, sent=True) from error
        except httpx.TransportError as error:
            if "certificate" in str(error):  # in TLS 1.3 a server says so only after the handshake
                raise ServerUnreachable(_SHOW_ONE.format(self.url)) from error
            message = f"The connection to {self.url} broke before the answer came. Try again; the server may be restarting."
            raise ServerUnreachable(message, code="connection_lost", passing=True, sent=True) from error


class Connection(_Line):
    """Runs operations and blocks. May be shared between threads."""

    def __init__(self, url: str, caller: Caller, timeout: float, retries: int, trust: Trust) -> None:
        super().__init__(url, caller, timeout, retries, trust)
        self._http = httpx.Client(**self._options(caller.api_key, trust))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def run(self, steps: Steps[T]) -> T:
        """Take all steps of an operation and return its result."""
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._take(step)
                except _KNOWN as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            return cast("T", done.value)
        finally:
            steps.close()

    def _take(self, step: Step) -> object:
        match step:
            case Ask():
                with self._form(self._http, step) as request, self._faults():
                    return self._http.send(request)
            case Lines() | Save():
                return self._read(step)
            case Pause():
                sleep(step.seconds)
                return None
            case Work():
                return step.call()
            case Together():
                return self._together(step)

    def _read(self, step: Lines | Save) -> httpx.Response:
        request = self._request(self._http, step.ask, step.silence if isinstance(step, Lines) else None)
        with self._faults():
            response = self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    response.read()
                elif isinstance(step, Lines):
                    any(step.take(line) for line in response.iter_lines())
                else:
                    for piece in response.iter_bytes(_PIECE):
                        step.write(piece)
                        step.told(piece)
            finally:
                response.close()
        return response

    def _together(self, step: Together) -> list[object]:
        results: list[object] = []
        running: deque[Future[object]] = deque()
        with ThreadPoolExecutor(step.at_once, thread_name_prefix="modelkeep") as pool:
            try:
                for steps in step.each:
                    if len(running) == step.at_once:
                        results.append(running.popleft().result())
                    running.append(pool.submit(self.run, steps))
                results += [one.result() for one in running]
            finally:
                for one in running:
                    one.cancel()
        return results


class AsyncConnection(_Line):
    """Runs operations in the event loop; what blocks goes to a thread."""

    def __init__(self, url: str, caller: Caller, timeout: float, retries: int, trust: Trust) -> None:
        super().__init__(url, caller, timeout, retries, trust)
        self._http = httpx.AsyncClient(**self._options(caller.api_key, trust))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def run(self, steps: Steps[T]) -> T:
        """Take all steps of an operation and return its result."""
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._take(step)
                except _KNOWN as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            return cast("T", done.value)
        finally:
            steps.close()

    async def _take(self, step: Step) -> object:
        match step:
            case Ask():
                with self._form(self._http, step) as request, self._faults():
                    return await self._http.send(request)
            case Lines() | Save():
                return await self._read(step)
            case Pause():
                await anyio.sleep(step.seconds)
                return None
            case Work():
                return await anyio.to_thread.run_sync(step.call)
            case Together():
                return await self._together(step)

    async def _read(self, step: Lines | Save) -> httpx.Response:
        request = self._request(self._http, step.ask, step.silence if isinstance(step, Lines) else None)
        with self._faults():
            response = await self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    await response.aread()
                elif isinstance(step, Lines):
                    async for line in response.aiter_lines():
                        if step.take(line):
                            break
                else:
                    async for piece in response.aiter_bytes(_PIECE):
                        await anyio.to_thread.run_sync(step.write, piece)
                        step.told(piece)
            finally:
                await response.aclose()
        return response

    async def _together(self, step: Together) -> list[object]:
        waiting, results, failures = enumerate(step.each), dict[int, object](), list[Exception]()

        async def work() -> None:
            try:
                for number, steps in waiting:
                    results[number] = await self.run(steps)
            except Exception as error:  # noqa: BLE001 - raised again outside the group, which would wrap it
                failures.append(error)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for _ in range(step.at_once):
                group.start_soon(work)
        if failures:
            raise failures[0]
        return [results[number] for number in sorted(results)]


class _Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a form. Awaited, its files are read in a thread."""

    def __init__(self, form: Iterable[bytes], ask: Ask) -> None:
        self._form = form
        self._ask = ask

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._form:
            self._tell()
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = iter(self._form)
        while (piece := await anyio.to_thread.run_sync(next, pieces, None)) is not None:
            self._tell()
            yield piece

    def _tell(self) -> None:
        if self._ask.told is not None:
            self._ask.told()


def _refreshed(url: str, timeout: float, trust: Trust, refresh_token: str) -> Tokens:
    """Exchange a refresh token, apart from whatever else is asked."""
    with closing(Connection(url, Caller(), max(timeout, _REFRESH_S), 3, trust)) as line:
        return line.run(exchanged(line.server, refresh_token))


def _checked_key(api_key: str) -> str:
    key = api_key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise NotAuthenticated("The API key has characters that no key has; was it copied whole? Keys begin with mk_.")
    return key


def _why_no_connection(url: str, error: httpx.ConnectError) -> tuple[str, bool]:
    """Return what is wrong, and whether it may pass by itself."""
    said = str(error).lower()
    if "wrong_version_number" in said or "record layer" in said:
        return f"{url} does not speak TLS. Use http:// instead of https://.", False
    if ("alert" in said and "certificate" in said) or "handshake_failure" in said:
        return _SHOW_ONE.format(url), False
    if "certificate" in said:
        return f"The certificate of {url} is not trusted here. Give the file with your organisation's certificates.", False
    if "name or service not known" in said or "name resolution" in said or "nodename" in said:
        return f"The host name in {url} is not known here. Check its spelling.", False
    return f"No server answers at {url}. Is `modelkeep serve` running there, and is the port right?", True


def _lost(error: httpx.RemoteProtocolError) -> bool:
    return "disconnected" in str(error) or "peer closed" in str(error)


def _why_no_answer(url: str, *, lost: bool) -> str:
    if lost:
        return f"The server at {url} closed the connection without an answer. Try again; it may be restarting."
    return f"Something answers at {url}, but it does not speak HTTP. Check the address and the port."
