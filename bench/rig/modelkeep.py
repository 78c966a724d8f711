"""Modelkeep as a contestant: `modelkeep serve` on a fresh data directory, with everything that a real installation has on.

A key that is checked and limited, metrics, the prediction record, a request id in every answer. What of it was really on
is looked up from outside (`features`), for the report to say so.
"""

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from modelkeep.client import Client, ModelkeepError, NotFound, Rejected
from rig import artifacts, beside, recipes
from rig.beside import Beside
from rig.calls import Asking, Call
from rig.environments import python_of_checkout
from rig.machine import free_ports
from rig.servers import START_S, DidNotStart, Server

RATE = "60000000/min"
"""The key's limit: it is counted, and never reached."""

_PUSH_S = 120.0
_REJECTED = 4  # what the command line exits with
_DURATION = "modelkeep_prediction_duration_seconds"
_OF_DEPLOYMENTS = "deployment."


@dataclass(frozen=True)
class Variant:
    """One way to run Modelkeep: settings by their dotted names, or the interpreter of another installation.

    A name that begins with `deployment.` is a setting of each deployment (`deployment.recording.enabled`), its value JSON.
    """

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """Read `name` or `name:log.level=info,python=PATH,checkout=FOLDER`; raises `ValueError`."""
        name, _colon, rest = text.partition(":")
        options: dict[str, str] = {}
        for part in filter(None, rest.split(",")):
            key, equals, value = part.partition("=")
            if not equals:
                raise ValueError(f"{part!r} in {text!r} is not name=value")
            options[key] = value
        python, checkout = options.pop("python", sys.executable), options.pop("checkout", "")
        if checkout:
            python = str(python_of_checkout(Path(checkout)))
        return cls(name, options, python)

    @property
    def foreign(self) -> bool:
        """Whether it runs other code than this bench."""
        return self.python != sys.executable

    def named(self, name: str) -> "Variant":
        """Return the same under another name."""
        return replace(self, name=name)

    def over(self, other: "Variant") -> "Variant":
        """Return the other one with these settings on top."""
        return replace(other, settings={**other.settings, **self.settings})

    def environment(self) -> dict[str, str]:
        """Return the variables that `modelkeep serve` is started with."""
        installation = {name: value for name, value in self.settings.items() if not name.startswith(_OF_DEPLOYMENTS)}
        return {f"MODELKEEP_{name.replace('.', '__').upper()}": value for name, value in installation.items()}

    def of_deployments(self) -> dict[str, Any]:
        """Return the settings of each deployment, nested as the API takes them."""
        nested: dict[str, Any] = {}
        for name, value in self.settings.items():
            if name.startswith(_OF_DEPLOYMENTS):
                *groups, last = name.removeprefix(_OF_DEPLOYMENTS).split(".")
                place = nested
                for group in groups:
                    place = place.setdefault(group, {})
                place[last] = json.loads(value)
        return nested


def _nothing_kept(variant: Variant) -> dict[str, str]:
    """Return what keeps the cache from answering for the model, whose inputs repeat; another installation may not know it."""
    return {} if variant.foreign else {"MODELKEEP_SERVING__CACHE_MB": "0"}


class Modelkeep:
    """Starts Modelkeep with the models of a kind of work, and knows what to look at afterwards."""

    def __init__(
        self,
        work: str,
        variant: Variant | None = None,
        *,
        core: int | None,
        names: Iterable[str] = ("bench",),
        start_s: float = START_S,
    ) -> None:
        self._work = work
        self._names = tuple(names)
        self._variant = variant or Variant("modelkeep")
        self._port = free_ports(1)[0]
        self._data = Path()
        self._admin = ""
        self._key = ""
        self._limited = False
        self._pushed: set[str] = set()
        self._headers: dict[str, str] = {}
        self.server = Server(
            self._variant.name,
            [self._variant.python, "-m", "modelkeep.app.cli", "serve", "--port", str(self._port), "--data", "data"],
            environment={"MODELKEEP_LOG__LEVEL": "warning", **_nothing_kept(self._variant), **self._variant.environment()},
            prepare=self._prepare,
            core=core,
            start_s=start_s,
        )

    def client(self) -> Client:
        """Return a client that may do everything."""
        return Client(f"http://127.0.0.1:{self._port}", self._admin)

    def push(self, name: str) -> None:
        """Push the work's model under a name, and wait until it answers."""
        if self._work == artifacts.ROWS:
            options: dict[str, Any] = {"sample": [list(artifacts.questions(artifacts.ROWS)[0].row)]}
        else:
            options = {"preprocess": recipes.IMAGE, "sample": artifacts.model(self._work).with_name("0.jpg")}
        if self._variant.foreign:
            self._push_with_its_own_client(name, options)
            return
        with self.client() as client:
            client.push(artifacts.model(self._work), name, **options)
            if settings := self._variant.of_deployments():
                client.configure(name, settings)

    def register(self, name: str) -> None:
        """Make a model that has no version; raises `OSError`."""
        status, body = self._get("/api/v1/models", self._admin, body=json.dumps({"name": name}).encode())
        if status != http.client.CREATED:
            raise OSError(body.decode())

    def asking(self, names: Iterable[str] = (), extra: Mapping[str, str] | None = None) -> Asking:
        """Return how the deployments `names` (all that were pushed, by default) are asked, in rotation."""
        headers = {"X-API-Key": self._key, **(extra or {})}
        questions = artifacts.questions(self._work, "modelkeep")
        calls = []
        for number in range(len(questions) if len(self._names) == 1 else len(questions) * len(self._names)):
            question = questions[number % len(questions)]
            wanted = tuple(names) or self._names
            path = f"/api/v1/predict/{wanted[number % len(wanted)]}"
            if self._work == artifacts.ROWS:
                body = json.dumps({"inputs": [question.row]}).encode()
                calls.append(Call(path, {"Content-Type": "application/json", **headers}, body))
            else:
                calls.append(Call(f"{path}?top_k=5", {"Content-Type": "image/jpeg", **headers}, question.picture))
        read = _probabilities if self._work == artifacts.ROWS else _classes
        return Asking(self._port, tuple(calls), read, tuple(questions[n % len(questions)] for n in range(len(calls))))

    def uploading(self, core: int | None) -> Beside:
        """Return what uploads 2 GiB again and again."""
        self.register("ballast")
        return Beside(*beside.upload(self._port, self._admin, self.server.home), self.server.home / "uploaded", core)

    def listing(self, core: int | None) -> Beside:
        """Return what lists 10,000 predictions again and again."""
        return Beside(*beside.listing(self._variant.python, self._port, self._admin), self.server.home / "listed", core)

    def stages(self) -> dict[str, dict[str, float]]:
        """Return seconds and number of predictions by stage since the start, from `/metrics`."""
        found: dict[str, dict[str, float]] = {}
        text = self._get("/metrics", self._admin)[1].decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples if family.name == _DURATION else ():
                kind = sample.name.removeprefix(f"{_DURATION}_")
                if kind in {"sum", "count"}:
                    stage = found.setdefault(sample.labels["stage"], {"sum": 0.0, "count": 0.0})
                    stage[kind] += sample.value
        return found

    def features(self) -> dict[str, object]:
        """Say which of the things that cost time were on, as seen from outside."""
        call = self.server.asking.calls[0]
        refused = self._get(call.path, "", body=call.body, content_type=call.headers["Content-Type"])[0]
        self._get(call.path, self._key, body=call.body, content_type=call.headers["Content-Type"])
        identified = "x-request-id" in self._headers
        status, body = self._get("/api/v1/predictions?limit=1", self._admin)
        recorded = status == http.client.OK and bool(json.loads(body).get("items"))
        return {
            "key": refused == http.client.UNAUTHORIZED,
            "limit": self._limited,
            "metrics": sum(stage["count"] for stage in self.stages().values()) > 0,
            "record": recorded,
            "request_id": identified,
        }

    def _allow_code(self) -> None:
        """Have the forest's joblib taken; versions before there was a switch take it anyway."""
        with self.client() as client, contextlib.suppress(NotFound):
            client.allow_code(reason="the benchmark's own forest")

    def _prepare(self, server: Server) -> Asking:
        """Become admin, make a key, push; raises `OSError` while something is not ready yet."""
        self._data = server.home / "data"
        try:
            if not self._admin:
                token = (self._data / "setup-token").read_text().strip()
                with Client(f"http://127.0.0.1:{self._port}") as client:
                    self._admin = str(client.setup(token).secret)
                self._allow_code()
            self._key = self._key or self._make_key()
            for name in self._names:
                if name not in self._pushed:
                    self.push(name)
                    self._pushed.add(name)
        except Rejected as error:  # waiting would not help
            raise DidNotStart(str(error)) from error
        except ModelkeepError as error:
            raise OSError(str(error)) from error
        self.settle()
        return self.asking()

    def settle(self) -> None:
        """Do what is left before the first burst; nothing, usually."""

    def _push_with_its_own_client(self, name: str, options: Mapping[str, Any]) -> None:
        """Push by the command line of the other code: client and server of one checkout belong together."""
        command = [self._variant.python, "-m", "modelkeep.app.cli", "push", str(artifacts.model(self._work)), "--name", name]
        for option, value in options.items():
            place = Path(value) if isinstance(value, Path) else self._data / f"{option}.json"
            if not isinstance(value, Path):
                place.write_text(json.dumps(value))
            command += [f"--{option}", str(place)]
        environment = {"PATH": os.environ["PATH"], **self._variant.environment()}
        environment |= {"MODELKEEP_URL": f"http://127.0.0.1:{self._port}", "MODELKEEP_API_KEY": self._admin}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=_PUSH_S)
        if done.returncode == _REJECTED:
            raise DidNotStart(done.stderr[-600:])
        if done.returncode:
            raise OSError(done.stderr[-600:])

    def _make_key(self) -> str:
        """Return a key that may predict only, with a limit where this version knows limits."""
        asked: dict[str, object] = {"name": "bench", "scopes": ["predict"], "rate": RATE}
        status, body = self._get("/api/v1/keys", self._admin, body=json.dumps(asked).encode())
        self._limited = status == http.client.CREATED
        if not self._limited:
            del asked["rate"]
            status, body = self._get("/api/v1/keys", self._admin, body=json.dumps(asked).encode())
        if status != http.client.CREATED:
            raise OSError(body.decode())
        return str(json.loads(body)["secret"])

    def _get(
        self, path: str, key: str, *, body: bytes | None = None, content_type: str = "application/json"
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        headers = {"Content-Type": content_type} | ({"X-API-Key": key} if key else {})
        try:
            connection.request("GET" if body is None else "POST", path, body, headers)
            response = connection.getresponse()
            self._headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, response.read()
        finally:
            connection.close()


def share_of_stages(before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return mean microseconds a request by stage, and the share of the total, between two looks at the metrics."""
    seconds = {name: after[name]["sum"] - before.get(name, {"sum": 0.0})["sum"] for name in after}
    counts = {name: after[name]["count"] - before.get(name, {"count": 0.0})["count"] for name in after}
    total = seconds.get("total", 0.0)
    return {
        name: {
            "mean_us": round(seconds[name] * 1e6 / counts[name], 1),
            "share": round(seconds[name] / total, 4) if total else 0.0,
        }
        for name in after
        if counts[name]
    }


def _probabilities(answer: Any) -> list[float]:  # noqa: ANN401 - JSON
    """Return the one output of the first row that is a list: a probability a class."""
    return next(list(values[0]) for values in answer["outputs"].values() if isinstance(values[0], list))


def _classes(answer: Any) -> list[float]:  # noqa: ANN401 - JSON
    return [one["index"] for one in answer["predictions"][0]]
