"""`modelkeep push`: upload a model and follow it until it answers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelkeep.app.cli.completion import model_names
from modelkeep.app.cli.connect import connected, did_you_mean, refined
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, Url
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.screen import MEGABYTE, Screen, file_size

if TYPE_CHECKING:
    from modelkeep.client import Client, Deployment, Version
    from modelkeep.client.progress import Progress

_MODEL = (
    "The model: a file (ONNX, scikit-learn, PyTorch, XGBoost, LightGBM, CatBoost), or a folder (MLflow, OpenVINO, ONNX with "
    "data, a Python class)."
)
Name = Annotated[
    str,
    typer.Option(
        "--name", "-n", metavar="NAME", help="Model that it is a version of; made if it is new.", autocompletion=model_names
    ),
]
Preprocess = Annotated[str | None, typer.Option(metavar="imagenet|FILE.json", help="How a picture becomes the model's input.")]
Format = Annotated[
    str | None, typer.Option("--format", metavar="FORMAT", help="Format, where no suffix and no folder tells it.")
]
Promote = Annotated[
    bool, typer.Option("--promote", metavar="", help="Let it answer once it is ready (a first version always does).")
]
NoCompile = Annotated[
    bool, typer.Option("--no-compile", metavar="", help="Serve the file as it is, even where a faster form of it agrees.")
]
Optimise = Annotated[
    str, typer.Option(metavar="auto|off|openvino|bf16|int8|threads", help="How to make it faster for the server's host.")
]
Calibration = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="At least 40 rows (CSV or JSON), or pictures in a ZIP, to measure int8 and bf16 on."),
]
Budget = Annotated[str, typer.Option(metavar="SHARE", help="Share of answers that may change for speed: 1% or 0.01.")]
Workspace = Annotated[
    str | None, typer.Option(metavar="NAME", help="Where a new model is made; yours, where you have but one.")
]
Hooks = Annotated[
    Path | None, typer.Option(metavar="FILE.py", help="Python with preprocess(inputs), postprocess(outputs) or both.")
]
Parent = Annotated[
    str | None, typer.Option(metavar="VERSION", help="The version it was made from: its number, MODEL/NUMBER, or its id.")
]
Training = Annotated[
    Path | None, typer.Option(metavar="FILE.json", help="How it came to be: job, code, revision, by, and data as a list.")
]
_AN_OBJECT = "It holds an object with any of job, code, revision, by and data."
EXAMPLES = """[bold]Examples[/bold]

  modelkeep push model.joblib --name churn --sample rows.csv

  modelkeep push net.onnx --name photos --labels names.txt --preprocess imagenet

  modelkeep push mlruns/1/models/m-1/artifacts --name churn

  modelkeep push net.onnx --name photos --preprocess imagenet --calibration pictures.zip --accuracy-budget 1%

  modelkeep push model.onnx --name churn --hooks hooks.py --sample rows.csv

  modelkeep push v2.onnx --name photos --promote --json
"""


def push(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_MODEL)],
    *,
    name: Name,
    sample: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A few rows as the model takes them (CSV or JSON), or a picture.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(metavar="FILE", help="Names of the classes, one a line.")] = None,
    preprocess: Preprocess = None,
    format: Format = None,  # noqa: A002 - the field's word, as in the API
    description: Annotated[str, typer.Option(metavar="TEXT", help="What there is to know about this version.")] = "",
    promote: Promote = False,
    no_compile: NoCompile = False,
    optimise: Optimise = "auto",
    calibration: Calibration = None,
    accuracy_budget: Budget = "0",
    hooks: Hooks = None,
    workspace: Workspace = None,
    parent: Parent = None,
    training: Training = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", metavar="", help="Return as soon as the file is stored.")] = False,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Upload a model file or folder, have it checked, and see it answer."""
    if promote and no_wait:
        raise WrongUse("--promote needs to wait until the version is ready.", "Leave out --no-wait, or promote later.")
    _check_there(file)
    _check_files(sample, labels, calibration, hooks, training)
    screen, standing = Screen(as_json=as_json), _Standing(name, promote=promote)
    with connected(url, key, model=name, interrupted=standing.sentence) as client:
        with (
            refined("unsupported_format", "" if format else "Here that is --format FORMAT, for example --format onnx."),
            screen.transfer(f"{'Packing and uploading' if file.is_dir() else 'Uploading'} {file.name}") as progress,
        ):
            version = client.push(
                file,
                name,
                sample=sample,
                labels=labels,
                preprocess=_preprocess(preprocess),
                format=format,
                description=description,
                compile="off" if no_compile else "auto",
                optimise=optimise,
                calibration=calibration,
                accuracy_budget=accuracy_budget,
                hooks=hooks,
                workspace=workspace,
                parent=parent,
                training=_training(training),
                wait=False,
                on_packing=progress,
                on_progress=standing.watching(progress),
            )
        standing.number = version.number
        screen.news(f"Uploaded {file.name} ({file_size(version.size)}): {name} version {version.number}.")
        if not no_wait:
            return _follow(client, version, standing, screen)
    return screen.result(version.raw, lambda: screen.say(f"{name} version {version.number} is {version.state}."))


def _check_files(*given: Path | None) -> None:
    for one in given:
        _check_file(one)


def _training(file: Path | None) -> dict[str, Any] | None:
    if file is None:
        return None
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise WrongUse(f"{file} cannot be read as JSON.", _AN_OBJECT) from error
    if not isinstance(found, dict):
        raise WrongUse(f"{file} holds no JSON object.", _AN_OBJECT)
    return found


def _follow(client: "Client", version: "Version", standing: "_Standing", screen: Screen) -> None:
    """Wait until an uploaded version is checked and, where it is the one that answers, until it does; then show it."""
    name, number = version.model, version.number
    with screen.waiting(f"{version.state} ...") as tell:
        ready = client.wait_ready(name, number, on_state=lambda one: None if one.settled else tell(f"{one.state} ..."))
        standing.ready = True
        with refined("approval_needed", f"{name} version {number} is ready; later: `modelkeep promote {name} {number}`."):
            deployment = client.promote(name, number) if standing.promote else client.deployment(name)
        if deployment.version == number:
            tell("going into service ...")
            client.wait_serving(name, number)
    screen.result(ready.raw, lambda: _show(screen, ready, deployment))


@dataclass
class _Standing:
    """How far a push has come, to be told when somebody ends it."""

    name: str
    promote: bool
    sent: bool = False
    number: int | None = None
    ready: bool = False

    def watching(self, progress: "Progress | None") -> "Progress":
        """Return what to call with bytes done and in all; it hands them on to `progress`."""

        def watch(done: int, total: int) -> None:
            self.sent = done >= total
            if progress is not None:
                progress(done, total)

        return watch

    def sentence(self) -> str:
        """Return what was done until now."""
        if self.number is None and not self.sent:
            return "Nothing was uploaded."
        if self.number is None:
            return f"All was sent, and the answer not awaited: `modelkeep versions {self.name}` tells whether it is kept."
        kept = f"{self.name} version {self.number} is kept"
        look = f"modelkeep versions {self.name} {self.number}"
        if self.ready:
            return f"{kept} and ready; whether it answers: `modelkeep models {self.name}`."
        if self.promote:
            later = f"modelkeep promote {self.name} {self.number}"
            return f"{kept} and goes on being validated, but is not promoted: `{look}`, then `{later}`."
        return f"{kept} and goes on being validated: `{look}`."


def _preprocess(given: str | None) -> str | None:
    if given is not None and given.endswith(".json"):
        _check_file(Path(given))
    return given


def _check_file(path: Path | None) -> None:
    if path is None:
        return
    if path.is_dir():
        raise WrongUse(f"{path} is a directory; the command takes a file.")
    _check_there(path)


def _check_there(path: Path) -> None:
    if not path.exists():
        siblings = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        near = did_you_mean(path.name, siblings, lambda name: str(path.with_name(name)))
        raise WrongUse(f"There is no file {path}.", near or "Check the path; it is taken from where you are.")


def _show(screen: Screen, version: "Version", deployment: "Deployment") -> None:
    name, number = version.model, version.number
    serving = deployment.version == number
    screen.say(f"{name} version {number} is ready{' and answers predictions' if serving else ''}.")
    screen.facts(facts_of(version))
    for warning in (version.report or {}).get("warnings", ()):
        screen.say(f"Note: {warning}")
    if serving:
        rows = "--image PICTURE" if version.image else "--file ROWS.csv"
        screen.say(f"Try it:  modelkeep predict {name} {rows}")
    else:
        answers = f"Version {deployment.version} still answers" if deployment.version else "No version answers yet"
        screen.say(f"{answers}. To change that:  modelkeep promote {name} {number}")


def facts_of(version: "Version") -> dict[str, str | int | None]:
    """Return what is known of a version, as names and texts."""
    report, signature = version.report or {}, version.signature or {}
    compiled = report.get("compiled") or {}
    optimised = report.get("optimised") or {}
    faster = () if report.get("hooked") else (optimised, compiled)
    serving = next((one for one in faster if one.get("used")), report)
    cost = serving.get("latency_ms") or {}
    speed = ", ".join(f"{_short(cost[rows])} ms for {rows} row{'s' if rows != '1' else ''}" for rows in cost)
    memory = report.get("memory_bytes")
    return {
        "model": " ".join(str(report.get(part, "")) for part in ("framework", "framework_version", "kind")).strip(),
        "inputs": _tensors(signature.get("inputs", ())),
        "outputs": _tensors(signature.get("outputs", ())),
        "labels": version.labels,
        "hooks": ", ".join((version.hooks or {}).get("functions", ())) or None,
        "speed": speed,
        "compiled": _compiled(compiled),
        "optimised": _optimised(optimised),
        **{f"  {one['name']} by {one['provider']}": _candidate(one) for one in optimised.get("candidates", ())},
        "memory": f"{memory / MEGABYTE:.0f} MB" if memory else None,
    }


def _compiled(compiled: dict[str, Any]) -> str | None:
    """Return whether the model was compiled, in a few words."""
    if not compiled:
        return None
    if not compiled["used"]:
        return f"no: {compiled['reason']}"
    faster = f", {compiled['speed']:.1f} times as fast" if compiled.get("speed") else ""  # not in reports of before
    return f"yes{faster}; the same on {compiled['rows_compared']} rows"


def _optimised(optimised: dict[str, Any]) -> str | None:
    """Return what was made of the model for the host, in a few words."""
    if not optimised:
        return None
    if not optimised["used"]:
        return f"no: {optimised['reason']}"
    chosen = next(one for one in optimised["candidates"] if one["used"])
    return f"yes: {chosen['name']} by {chosen['provider']}, {chosen['speed']:.1f} times as fast"


def _candidate(one: dict[str, Any]) -> str:
    """Return what was measured of one candidate, and why it does not serve."""
    seen = [f"{one['speed']:.2g} times as fast"] if one["speed"] else []
    if one["measure"] is not None:
        seen.append(f"measures {one['measure']:.2%} on {one['rows']} rows")
    return "; ".join([*seen, *([one["reason"]] if one["reason"] else [])]) or "serves"


def _short(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 10 else f"{milliseconds:.2g}"  # noqa: PLR2004 - two digits tell enough


def _categories(spec: dict[str, object]) -> str:
    """Return the first few categories of a column, where they are known."""
    known = spec.get("categories")
    if not isinstance(known, list) or not known:
        return ""
    return f" of {', '.join(map(str, known[:3]))}{', ...' if len(known) > 3 else ''}"  # noqa: PLR2004 - as many as fit


def _tensors(specs: list[dict[str, object]]) -> str:
    """Return tensors in short: `x FP32 [n, 30]`, `since datetime [n]`; of many, the first few."""
    shown = []
    for spec in specs[:4]:
        axes = spec.get("shape")
        sizes = ", ".join("n" if size == -1 else str(size) for size in axes) if isinstance(axes, list) else ""
        shown.append(f"{spec.get('name')} {spec.get('kind') or spec.get('dtype')} [{sizes}]{_categories(spec)}")
    more = [f"and {len(specs) - len(shown)} more"] if len(specs) > len(shown) else []
    return "; ".join(shown + more)
