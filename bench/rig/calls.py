"""What is sent to a server, and what its answer says: each server has its own words for the same question."""

import http.client
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rig.artifacts import Question

_TIMEOUT_S = 60


class WrongAnswer(Exception):
    """A server answers, but not what is right."""


@dataclass(frozen=True)
class Call:
    """One HTTP request. `headers` without those that every request has (host, length)."""

    path: str
    headers: dict[str, str]
    body: bytes
    method: str = "POST"

    def wire(self) -> bytes:
        """Return the request as it goes over the connection."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, f"Content-Length: {len(self.body)}", "", ""]).encode() + self.body


Read = Callable[[Any], Sequence[float]]
"""Takes an answer's JSON; returns the row's probabilities, or the best classes with the best one first."""


@dataclass(frozen=True)
class Asking:
    """How one server is asked all the questions, and how its answers are read (None: nothing in them is right or wrong)."""

    port: int
    calls: tuple[Call, ...]
    read: Read | None
    questions: tuple[Question, ...] = field(repr=False, default=())

    def first(self) -> None:
        """Ask once; raises `OSError` or `http.client.HTTPException` while nobody answers, `WrongAnswer` when it is refused."""
        self.answer(self.calls[0])

    def answer(self, call: Call) -> bytes:
        """Return what one call is answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT_S)
        try:
            connection.request(call.method, call.path, call.body, call.headers)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise WrongAnswer(f"status {response.status}: {body[:300]!r}")
        return body

    def check(self, most: int = 8) -> None:
        """Compare the first answers with what is right; raises `WrongAnswer`."""
        if self.read is None:
            return
        for call, question in list(zip(self.calls, self.questions, strict=False))[:most]:
            body = self.answer(call)
            try:
                got = self.read(json.loads(body))
            except (ValueError, LookupError, TypeError) as error:
                raise WrongAnswer(f"the answer cannot be read: {body[:300]!r}") from error
            fits = [abs(one - right) < 1e-4 for one, right in zip(got, question.right, strict=False)]  # noqa: PLR2004 - float32
            if len(fits) < len(question.right) or not all(fits):
                raise WrongAnswer(f"{list(got)} where {list(question.right)} is right")

    def write(self, folder: Path) -> Path:
        """Write the requests for the load generator; return the index."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for number, call in enumerate(self.calls):
            body, head = folder / f"{number}.body", folder / f"{number}.head"
            body.write_bytes(call.body)
            head.write_text("".join(f"{name}: {value}\n" for name, value in call.headers.items()))
            lines.append(f"{call.method}\t{call.path}\t{body}\t{head}\n")
        index = folder / "index"
        index.write_text("".join(lines))
        return index
