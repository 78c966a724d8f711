"""The peers: how each is started, asked and read. Their servers are in `bench/peers`, one folder each.

All serve the same artifact through the same functions (`peers/model/served.py`), batch alike where they batch (64 rows or
8 pictures, 2 or 5 ms), and run one model process on one core, or one a core on two.
"""

import base64
import json
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig import artifacts
from rig.artifacts import Question
from rig.calls import Asking, Call, Read
from rig.environments import python_of
from rig.machine import free_ports
from rig.paths import ARTIFACTS, PEERS
from rig.servers import Server

DEFAULT = ("mosec", "torchserve", "pytriton", "mlserver", "fastapi")
UNBATCHED = "+nobatch"
"""Behind a peer's name: the same peer with batching off."""

_JSON = {"Content-Type": "application/json"}
_JPEG = {"Content-Type": "image/jpeg"}
_FORM = {"Content-Type": "multipart/form-data; boundary=BOUND"}
_PORTS = 5
_TRITON_HEADER = 128  # the binary extension wants to know how long its JSON is: padded to one length for all


@dataclass(frozen=True)
class Manner:
    """How one peer is spoken to: what it is sent, how it is read, how it is started."""

    row: Callable[[Question], Call]
    picture: Callable[[Question], Call]
    probabilities: Read
    classes: Read
    command: Callable[[Path, Path, int, int], list[str]]


def _script(python: Path, folder: Path, port: int, workers: int) -> list[str]:
    del port, workers
    return [str(python), str(folder / "serve.py")]


def _uvicorn(python: Path, folder: Path, port: int, workers: int) -> list[str]:
    command = [str(python), "-m", "uvicorn", "serve:app", "--app-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    options = [
        "--workers",
        str(workers),
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--no-access-log",
        "--log-level",
        "warning",
    ]
    return command + options


def _mosec(python: Path, folder: Path, port: int, workers: int) -> list[str]:
    options = ["--address", "127.0.0.1", "--port", str(port), "--timeout", "30000", "--log-level", "warning"]
    return [*_script(python, folder, port, workers), *options]


def _bentoml(python: Path, folder: Path, port: int, workers: int) -> list[str]:
    del workers
    where = ["--working-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    return [str(python), "-m", "bentoml", "serve", "serve:Service", *where]


def _rows(path: str) -> Callable[[Question], Call]:
    return lambda question: Call(path, _JSON, json.dumps({"rows": [question.row]}).encode())


def _raw(path: str) -> Callable[[Question], Call]:
    return lambda question: Call(path, _JPEG, question.picture)


def _form(path: str) -> Callable[[Question], Call]:
    head = b'--BOUND\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return lambda question: Call(path, _FORM, head + question.picture + b"\r\n--BOUND--\r\n")


def _bare_row(question: Question) -> Call:
    return Call("/predictions/m", _JSON, json.dumps(question.row).encode())


def _v2(name: str, **more: object) -> Callable[[Question], Call]:
    def call(question: Question) -> Call:
        tensor = {"name": name, "shape": [1, len(question.row)], "datatype": "FP64", "data": question.row}
        return Call("/v2/models/m/infer", _JSON, json.dumps({"inputs": [tensor], **more}).encode())

    return call


def _v2_base64(question: Question) -> Call:
    data = [base64.b64encode(question.picture).decode()]
    parameters = {"content_type": "base64"}
    tensor = {"name": "picture", "shape": [1], "datatype": "BYTES", "parameters": parameters, "data": data}
    return Call("/v2/models/m/infer", _JSON, json.dumps({"inputs": [tensor]}).encode())


def _v2_binary(question: Question) -> Call:
    size = len(question.picture)
    parameters = {"binary_data_size": size + 4}
    tensor = {"name": "picture", "shape": [1, 1], "datatype": "BYTES", "parameters": parameters}
    head = json.dumps({"inputs": [tensor]}).encode().ljust(_TRITON_HEADER)
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(_TRITON_HEADER)}
    return Call("/v2/models/m/infer", headers, head + struct.pack("<I", size) + question.picture)


def _output(name: str) -> Read:
    return lambda answer: next(one["data"] for one in answer["outputs"] if one["name"] == name)


def _plain_probabilities(answer: Any) -> list[float]:  # noqa: ANN401 - JSON
    return list(answer["probabilities"][0])


def _plain_classes(answer: Any) -> list[float]:  # noqa: ANN401 - JSON
    return [one["class"] for one in answer["top5"]]


_PLAIN: dict[str, Any] = {"probabilities": _plain_probabilities, "classes": _plain_classes, "command": _script}

MANNERS: dict[str, Manner] = {
    "fastapi": Manner(**_PLAIN | {"row": _rows("/predict"), "picture": _form("/predict"), "command": _uvicorn}),
    "litserve": Manner(**_PLAIN | {"row": _rows("/predict"), "picture": _form("/predict")}),
    "mosec": Manner(**_PLAIN | {"row": _rows("/inference"), "picture": _raw("/inference"), "command": _mosec}),
    "torchserve": Manner(**_PLAIN | {"row": _bare_row, "picture": _raw("/predictions/m")}),
    "bentoml": Manner(
        **_PLAIN
        | {
            "row": _rows("/predict"),
            "picture": _form("/predict"),
            "command": _bentoml,
            "probabilities": lambda answer: answer[0],
            "classes": lambda answer: _plain_classes(answer[0]),
        }
    ),
    "mlserver": Manner(
        **_PLAIN
        | {
            "row": _v2("input-0", outputs=[{"name": "predict_proba"}]),
            "picture": _v2_base64,
            "probabilities": _output("predict_proba"),
            "classes": lambda answer: [one["class"] for one in json.loads(_output("top5")(answer)[0])],  # type: ignore[arg-type]
        }
    ),
    "pytriton": Manner(
        **_PLAIN
        | {
            "row": _v2("rows"),
            "picture": _v2_binary,
            "probabilities": _output("probabilities"),
            "classes": _output("class"),
        }
    ),
}
"""Every peer that can be measured."""


def peer(name: str, work: str, *, workers: int, core: int | None) -> Server:
    """Return the peer's server, not yet started; raises `NotInstalled`, `KeyError` for a name that is none."""
    plain = name.removesuffix(UNBATCHED)
    manner = MANNERS[plain]
    python = python_of(plain)
    ports = free_ports(_PORTS)
    questions = tuple(artifacts.questions(work))
    ask = manner.row if work == artifacts.ROWS else manner.picture
    calls = tuple(ask(question) for question in questions)
    asking = Asking(ports[0], calls, manner.probabilities if work == artifacts.ROWS else manner.classes, questions)
    environment = {
        "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": f"{PEERS / 'model'}:{PEERS / plain}",
        "BENCH_WORK": work,
        "BENCH_ARTIFACTS": str(ARTIFACTS),
        "BENCH_WORKERS": str(workers),
        "BENCH_PORT": str(ports[0]),
        **{f"BENCH_PORT_{number}": str(port) for number, port in enumerate(ports[1:], 2)},
        **({"BENCH_BATCH": "1"} if name.endswith(UNBATCHED) else {}),
        **_QUIET,
    }
    command = manner.command(python, PEERS / plain, ports[0], workers)
    return Server(name, command, environment=environment, prepare=lambda _server: asking, core=core)


def hello(like: Asking, *, workers: int, core: int | None) -> Server:
    """Return the floor: the HTTP server of Modelkeep, which reads the same requests and answers the same bytes to all."""
    port = free_ports(1)[0]
    asking = Asking(port, like.calls, None)
    command = _uvicorn(Path(sys.executable), PEERS / "hello", port, workers)
    return Server("hello world", command, environment=_QUIET, prepare=lambda _server: asking, core=core)


_QUIET = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "NO_COLOR": "1",
    "DO_NOT_TRACK": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "ORT_DISABLE_TELEMETRY": "1",
}
