"""Writes the reference pages that follow from the code: settings, commands, errors, metrics, HTTP, values, OpenAPI.

make docs        (a test fails while a page says something else than the code)
"""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import get_args, get_type_hints

import typer
from click import Command, Parameter

import modelkeep
from modelkeep.api import asgi
from modelkeep.app import description
from modelkeep.app.allowed import in_words
from modelkeep.app.cli.problems import EXIT_CODES
from modelkeep.app.cli.program import app
from modelkeep.app.settings import Settings, described
from modelkeep.contracts.auth import LdapSettings, OidcSettings, ProviderSettings
from modelkeep.contracts.errors import all_errors
from modelkeep.contracts.rejections import ADVICE
from modelkeep.contracts.secret import Secret
from modelkeep.infra import storage_metrics
from modelkeep.infra.problems import STATUS
from modelkeep.infra.tally import BUDGET, DROPPED, OTHER
from modelkeep.serving.coercion import TABLE, Taken
from modelkeep.serving.metrics import FAMILIES

HERE = Path(__file__).parent / "reference"
_MADE = "<!-- made by docs/generate.py: change the code, then `make docs` -->\n"


def pages() -> dict[str, str]:
    """Return each page's text by its file name."""
    makers = (settings, commands, errors, metrics, http, values)
    return {f"{maker.__name__}.md": maker() for maker in makers} | {"openapi.json": description.text()}


def settings() -> str:
    """Every setting: name, default, values that it may have, sentence."""
    rows = [
        f"| `{one.name}` | `{_shown(one.value)}` | {one.allowed} | {one.about} |"
        for one in described(Settings.model_construct())
    ]
    secret = ", ".join(f"`{one.name}`" for one in described(Settings.model_construct()) if isinstance(one.value, Secret))
    return f"""{_MADE}
# Settings

Later sources win: defaults, `modelkeep.toml` in the working directory (or `--config FILE`), `.env`, environment variables,
the command line. In the file a dot is a table (`[server]` with `port = 9000`); in the environment it is two underscores, in
capitals, behind `MODELKEEP_`: `MODELKEEP_SERVER__PORT=9000`, `MODELKEEP_DATABASE__URL=postgresql://...`. A name that is no
setting is refused, and so is a value that the setting may not have. `modelkeep doctor` shows every value that is not a default
and where it comes from, without the secrets in it.

A setting that is a secret ({secret}) can come from a file, as those that a platform mounts: `_file` behind its name, and
the file's name as its value. `MODELKEEP_DATABASE__URL_FILE=/run/secrets/database` is read once, when Modelkeep starts.

| name | default | may be | what it is |
|---|---|---|---|
{chr(10).join(rows)}

The command line client reads more variables: `MODELKEEP_URL` and `MODELKEEP_API_KEY`, and over TLS `MODELKEEP_CA_FILE`,
`MODELKEEP_CLIENT_CERTIFICATE` and `MODELKEEP_CLIENT_KEY`: see [TLS](../how-to/tls.md).

## OpenID providers

Each table of `auth.oidc` has these; those without a default are needed. [How](../how-to/sign-on.md).

{_fields(OidcSettings)}

## Directories

Each table of `auth.ldap` has these.

{_fields(LdapSettings)}
"""


def _fields(table: type[ProviderSettings]) -> str:
    hints = get_type_hints(table, include_extras=True)
    rows = []
    for one in fields(table):
        needed = one.default is MISSING and one.default_factory is MISSING
        value = "" if needed else f"`{_shown(_default(one))}`"
        rows.append(f"| `{one.name}` | {value} | {in_words(hints[one.name])} | {get_args(hints[one.name])[1]} |")
    return "\n".join(["| name | default | may be | what it is |", "|---|---|---|---|", *rows])


def _default(one: Field[object]) -> object:
    value = one.default if one.default_factory is MISSING else one.default_factory()
    return json.dumps(value) if isinstance(value, tuple | dict) else value


def commands() -> str:
    """Every command with its arguments and options."""
    root = typer.main.get_command(app)
    parts = [f"{_MADE}\n# Commands\n\n`modelkeep COMMAND --help` says the same. {EXIT_CODES}\n"]
    for name, command in _walk(root, "modelkeep"):
        parts.append(f"\n## {name}\n\n{_sentence(command)}\n")
        if command.params:
            parts.append("\n| option | what it is |\n|---|---|\n")
            parts += [f"| {_option(one)} | {_help(one)} |\n" for one in command.params if not _unseen(one)]
    return "".join(parts)


def errors() -> str:
    """Every error code with its status, and every reason for a rejection."""
    for module in pkgutil.walk_packages(modelkeep.__path__, "modelkeep."):
        elsewhere = module.name.startswith("modelkeep.plugins.")  # they raise what contracts name, and may lack their libraries
        if not (module.name.endswith("__main__") or ".migrations." in module.name or elsewhere):
            importlib.import_module(module.name)
    known: dict[str, str] = {}
    for one in all_errors():
        sentence = " ".join((one.__doc__ or "").split())
        row = f"| `{one.code}` | {STATUS[one.kind]} | {one.kind} | {sentence} |"
        known[one.code] = min(row, known.get(one.code, row))  # a code that two planes raise has one line
    rows = [known[code] for code in sorted(known)]
    reasons = [f"| `{reason}` | {advice} |" for reason, advice in ADVICE.items()]
    return f"""{_MADE}
# Errors

An error is a problem document (RFC 9457, `application/problem+json`) with a stable `code`, a sentence, the request's id, and
where fields are at fault `errors` with the path and code of each, never its value. At a dialect's own addresses it has
that dialect's shape, with the same status: below `/v2` and `/v1` `{{"error": "..."}}`. `Retry-After` comes with what may work
later.

| code | status | kind | what it says |
|---|---|---|---|
{chr(10).join(rows)}

## Rejections

A version that is not fit to serve ends `rejected`, with one of these codes, advice, and what exactly was seen.

| code | advice |
|---|---|
{chr(10).join(reasons)}
"""


def metrics() -> str:
    """Every metric that the server exports."""
    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.about} |"
        for one in sorted((*FAMILIES, *storage_metrics.FAMILIES), key=lambda one: one.name)
    ]
    return f"""{_MADE}
# Metrics

`GET /metrics` (a key with the scope `metrics:read`) answers in Prometheus' text format, or in OpenMetrics where `Accept` asks
for it. Each page has the numbers of all servers of the installation. What counts goes on counting when a server is replaced,
and begins at 0 when the installation is started; a metric shows once there is something to show.

One metric has {BUDGET:,} label sets at most. What would be more is counted under the label value "{OTHER}", so that sums stay
right, and in `{DROPPED.name}`. The label sets of deployments that are gone stay until the next start.

| name | type | labels | what it counts |
|---|---|---|---|
{chr(10).join(rows)}
"""


def values() -> str:
    """The one table of values."""
    rows = [
        " | ".join(("", one.name, " ".join(f"`{dtype}`" for dtype in one.dtypes), *_columns(one), "")).strip() for one in TABLE
    ]
    return f"""{_MADE}
# Values

What each kind of value takes, through every door: native JSON, the Open Inference Protocol, and samples in JSON or CSV.
Nothing is changed quietly: what does not fit is refused with the path of the value and a code, never with the value itself.
Missing values are taken where the signature says `nullable`.

| kind | datatypes | of JSON | of a CSV | missing | refused |
|---|---|---|---|---|---|
{chr(10).join(rows)}

- **Which columns a model takes** follows from the artifact and the sample. `modelkeep versions NAME NUMBER`, `/info` and the
  protocol's metadata show it: datatype, `nullable`, `kind` where texts are dates, and the categories that an encoder was
  fitted with (up to 100). Another category is handed to the model, which refuses it or not.
- **True, false and gaps** in one column are `FP64` of the kind `boolean`, because `BOOL` has no place for a gap: a tensor in
  bytes has 1, 0 and NaN, and JSON and CSV have what the table says.
- **Whole numbers** of a sample are floats for a model of scikit-learn, so that the next row may have a fraction. They stay
  whole, with all their digits, where the sample or the model's categories go beyond 2^53, or where functions of the model's own
  see them. A column with such numbers and gaps is refused: no datatype holds both.
- **Digits with a zero before them** (`0100`) are a text in a CSV. So is everything that an encoder was fitted on as texts.
- **Dates** are `BYTES` of the kind `datetime`. Without a zone they stay without; with one, the model sees the hours of that
  offset. A sample's dates are tried as dates first, and as the texts they are where the model does not take dates.
- **Durations** have no form of their own: send seconds, as a number.
- **Answers.** Numbers, true and false, and texts are what they are in JSON; whole numbers keep all their digits. Dates are
  texts in ISO 8601. A sparse answer is made dense, up to 128 MiB. An answer of mixed values is texts. NaN and infinity are
  `null`, unless the deployment's `not_finite` says otherwise: [deployments](deployments.md).
"""


def _columns(one: Taken) -> tuple[str, ...]:
    return one.json, one.csv, one.missing, one.refused


def http() -> str:
    """Every route of the control plane, from its OpenAPI document, and those of the predict path."""
    rows = []
    for path, methods in asgi.document(tuple)["paths"].items():
        for method, operation in methods.items():
            about = operation.get("description", operation.get("summary", "")).split("\n")[0]
            rows.append(f"| `{method.upper()} {path}` | {about} |")
    return f"""{_MADE}
# HTTP

Every route but health and the ways to log in needs an API key: `X-API-Key: mk_...` or `Authorization: Bearer mk_...`, or it
is the access key id of an AWS signature; or what a [login](../how-to/people.md) got ([which counts where](access.md)). For a
platform that has none to send, [one may stand in](../how-to/vertex.md#callers-without-keys), and so may
[a client certificate](../how-to/tls.md#keys-that-go-with-certificates).
The interactive description is at `/docs` and `/redoc` (a browser may give the key as the password of HTTP Basic), and as a file
in [openapi.json](openapi.json): see [how to use it](../how-to/api-description.md). Which scope each route needs:
[access](access.md). What is refused before that: [the edge](../explanation/edge.md). Lists take `limit` and `cursor`. Each
answer has `X-Request-ID`; send your own, or a W3C `traceparent`, to find it again in the log.

A write may be repeated: send an `Idempotency-Key` (1 to 255 printable ASCII characters; a fresh UUID for each new request), and
repeat the same request with the same key within 24 hours. It is done once; the repeat gets the first answer, with
`Idempotency-Replayed: true`, also after a crash, from another process, or where a 503 left open whether it was done. Keys are
those of the API key they come with. Another request under a used key is refused with 409 `idempotency_key_reused`; the same
while the first is still under way with 409 `idempotency_key_in_use` and `Retry-After`. A refused request did nothing, and its
key may be used again.

## Predictions

| route | what it does |
|---|---|
| `POST /api/v1/predict/{{deployment}}` | Predict: `{{"inputs": ...}}`, a picture, or a form with `file`; see below. |
| `POST /predict`, `GET /info` | The same, and a description, for `?model=NAME`, the default model, or the only one. |
| `GET /v2`, `GET /v2/models/{{m}}[/versions/{{v}}]` | Open Inference: what the server and a model are. |
| `GET /v2/models/{{m}}[/versions/{{v}}]/ready` | Open Inference: whether a model answers. |
| `POST /v2/models/{{m}}[/versions/{{v}}]/infer` | Open Inference: predict. See [how](../how-to/open-inference.md). |
| `GET /v2/models[/{{m}}[/versions/{{v}}]]/stats`, `.../config` | Open Inference: statistics, configuration. |
| `POST /v2/repository/index` | Open Inference: what is served, loading, or cannot be served. |
| `POST /v2/repository/models/{{m}}/load`, `.../unload` | Open Inference: restore or archive a model, and wait for it. |
| `GET /v2/health/live`, `GET /v2/health/ready` | Open Inference: health; no key needed. |
| `POST /invocations`, `POST /serving-endpoints/{{deployment}}/invocations` | [MLflow](../how-to/mlflow.md): predict. |
| `GET /ping`, `GET /version` | MLflow, SageMaker: whether the chosen model answers; the version; no key needed. |
| `POST /endpoints/{{deployment}}/invocations` | [SageMaker's runtime](../how-to/sagemaker.md), boto3: predict. |
| `POST /v1/models/{{m}}[/versions/{{v}}\\|/labels/{{l}}]:predict` | TensorFlow Serving: also `:classify`, `:regress`. |
| `GET /v1/models`, `GET /v1/models/{{m}}[/versions/{{v}}\\|/labels/{{l}}][/metadata]` | The same: models, status, signature. |
| `serving.predict_route`, `serving.health_route` | Vertex AI: predict; health, no key needed. None by default. |
| `GET /health`, `GET /healthz`, `GET /readyz` | Health, liveness, readiness with its reasons; no key needed. |
| `GET /metrics` | Prometheus metrics. |

`inputs` is a list of rows (`[[1, 2], [3, 4]]`), of records (`[{{"a": 1, "b": 2}}]`), or an object of columns
(`{{"a": [1, 3], "b": [2, 4]}}`); for a model with several inputs an object of nested lists by input name; for pictures a list
of base64 texts. Missing values are `null`, where the signature says `nullable`. `top_k` asks for the best classes of each row,
`outputs` for some outputs only, `version` for the version of this number or [alias](../how-to/aliases.md) and not the promoted
one; the query takes it too, and a header in every dialect: `X-Modelkeep-Version`. `include` adds `metadata` about the answer:
`["timings", "version"]` says how long its parts took and which file answered. Beside a picture, `top_k`, `outputs` and
`include` come in the query or as fields of the form, with commas between names. `X-Request-Timeout: 0.5` sets a deadline in
seconds. The answer names the prediction (`id`, also `X-Prediction-ID`) and the version that gave it:

```json
{{"id": "prd_01J...", "deployment": "churn", "model": "churn", "version": 3,
 "outputs": {{"label": [1], "probabilities": [[0.1, 0.9]]}}}}
```

## Everything else

| route | what it does |
|---|---|
{chr(10).join(rows)}
"""


def _walk(command: Command, name: str) -> Iterator[tuple[str, Command]]:
    children: dict[str, Command] = getattr(command, "commands", {})
    if children:
        if getattr(command, "invoke_without_command", False):
            yield name, command
        for child in sorted(children):
            yield from _walk(children[child], f"{name} {child}")
    else:
        yield name, command


def _sentence(command: Command) -> str:
    return " ".join((command.help or "").split())


def _unseen(one: Parameter) -> bool:
    return one.name == "help" or getattr(one, "hidden", False)


def _option(one: Parameter) -> str:
    if one.param_type_name == "option":
        return " ".join(f"`{flag}`" for flag in one.opts)
    return f"`{one.metavar or (one.name or '').upper()}`"


def _help(one: Parameter) -> str:
    return " ".join(str(getattr(one, "help", "") or "").split()).replace("|", "\\|")


def _shown(value: object) -> str:
    return '""' if value in ("", Secret("")) else str(value)


def main() -> None:
    """Write all pages."""
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
