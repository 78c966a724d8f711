"""Where settings are given: the settings file, `.env`, the environment, the command line; and which of them counts.

A container of SageMaker that is told its port (`SAGEMAKER_BIND_TO_PORT`) listens there by default.

Every name is checked, in every source: a typing error must not become a default.
"""

import difflib
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from modelkeep.contracts.errors import Invalid
from modelkeep.contracts.secret import Secret

CONFIG_FILE = Path("modelkeep.toml")
ENV_FILE = Path(".env")
PREFIX = "MODELKEEP_"

_ENVIRONMENT, _COMMAND_LINE = _NOT_FILES = ("environment", "command line")

_IN_FILE = "_file"
_SAGEMAKER_PORT = "SAGEMAKER_BIND_TO_PORT"
_VERTEX = {
    "AIP_HTTP_PORT": "server.port",
    "AIP_PREDICT_ROUTE": "serving.predict_route",
    "AIP_HEALTH_ROUTE": "serving.health_route",
}
"""What Vertex AI tells its containers, and the settings that say the same: where they are given anywhere, they count."""

_OURS = frozenset(
    {"URL", "API_KEY", "CA_FILE", "CLIENT_CERTIFICATE", "CLIENT_KEY", "GRPC", "ADMIN_EMAIL", "ADMIN_PASSWORD"}
)  # the client reads them, the demo writes them
# Kubernetes tells every container of a namespace about a service called "modelkeep", by variables that look like ours.
_KUBERNETES = re.compile(r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_KUBERNETES_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


class InvalidSettings(Invalid):
    """A setting is wrong."""

    code = "invalid_settings"


@dataclass(frozen=True)
class Given:
    """What one source says about one setting: its dotted name, the value as it stands there, and where that is."""

    name: str
    value: object
    where: str

    @property
    def source(self) -> str:
        """The source, as it stands in a sentence."""
        return f"the {self.where}" if self.where.startswith(_NOT_FILES) else self.where


def variable(name: str) -> str:
    """Return the environment variable for a setting: `MODELKEEP_SERVER__PORT` for `server.port`."""
    return PREFIX + name.replace(".", "__").upper()


def gather(
    known: Collection[str],
    config: Path | None,
    environment: Mapping[str, str],
    overrides: Mapping[str, object],
    secret: Collection[str] = (),
) -> dict[str, Given]:
    """Return for each setting that is given somewhere what its strongest source says.

    `known` are the dotted names that there are; another name raises `InvalidSettings`, as does a file that cannot be read.
    Those in `secret` come as such, and with `_file` behind their names from a file.
    """
    sources = [
        _from_sagemaker(environment),
        _from_vertex(environment),
        _from_toml(config),
        _from_variables(_env_file(), ".env"),
        _from_variables(environment, _ENVIRONMENT),
        (Given(name, value, _COMMAND_LINE) for name, value in overrides.items()),
    ]
    found: dict[str, Given] = {}
    for source in sources:
        for given in source:
            named = given.name.removesuffix(_IN_FILE)
            if given.name not in known and named != given.name and named in secret:
                found[named] = _from_file(given, named)
            elif given.name not in known:
                raise InvalidSettings(_unknown(given, known))
            elif given.name in secret and isinstance(given.value, str):
                found[given.name] = replace(given, value=Secret(given.value))
            else:
                found[given.name] = given
    return found


def _from_file(given: Given, name: str) -> Given:
    """Return the secret `name` from the file that is given for it."""
    try:
        text = Path(str(given.value)).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InvalidSettings(f"The file of {given.name}, which {given.source} names, cannot be read.") from error
    if len(text.splitlines()) != 1:
        raise InvalidSettings(f"The file of {given.name}, which {given.source} names, must have one line.")
    return Given(name, Secret(text), f"{given.where}, from a file")


def _from_sagemaker(environment: Mapping[str, str]) -> Iterator[Given]:
    """Where SageMaker tells its container a port, it calls it there, and from outside."""
    port = environment.get(_SAGEMAKER_PORT)
    if port is not None:
        where = f"{_ENVIRONMENT} ({_SAGEMAKER_PORT})"
        yield from (Given("server.host", "0.0.0.0", where), Given("server.port", port, where))  # noqa: S104 - as its contract is
        yield Given("server.hosts", "*", where)  # nobody browses there, and what the platform calls it by is not said


def _from_toml(config: Path | None) -> Iterator[Given]:
    path = config or CONFIG_FILE
    for section, value in _toml(path, required=config is not None).items():
        if isinstance(value, Mapping):
            yield from (Given(f"{section}.{key}", one, str(path)) for key, one in value.items())
        else:
            yield Given(section, value, str(path))


def _toml(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if required:
            raise InvalidSettings(f"There is no settings file {path}.") from error
        return {}
    except OSError as error:
        raise InvalidSettings(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"The settings file {path} cannot be read: {error}.") from error


def _env_file() -> dict[str, str]:
    try:
        return {name: value or "" for name, value in dotenv_values(ENV_FILE, encoding="utf-8").items()}
    except OSError as error:
        raise InvalidSettings(f"The settings file {ENV_FILE} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidSettings(f"The settings file {ENV_FILE} cannot be read: {error}.") from error


def _from_variables(variables: Mapping[str, str], where: str) -> Iterator[Given]:
    for name, value in variables.items():
        rest = name.upper().removeprefix(PREFIX)
        if rest != name.upper() and not _is_another(rest, value):
            yield Given(rest.lower().replace("__", ".", 1), value, f"{where} ({name})")


def _from_vertex(environment: Mapping[str, str]) -> Iterator[Given]:
    for name, setting in _VERTEX.items():
        value = environment.get(name)
        if value:
            yield Given(setting, value, f"{_ENVIRONMENT} ({name})")
            yield Given("server.hosts", "*", f"{_ENVIRONMENT} ({name})")  # as for SageMaker


def _is_another(name: str, value: str) -> bool:
    """Whether a variable with our prefix is rightly there and no setting; `name` is without the prefix."""
    if name in _OURS or _KUBERNETES.fullmatch(name):
        return True
    return name == "PORT" and _KUBERNETES_ADDRESS.match(value) is not None


def _unknown(given: Given, known: Collection[str]) -> str:
    fields = [name for name in known if name.startswith(f"{given.name}.")]
    if fields:
        example = _spelled(fields[0], given)
        return f"{given.name} is a section, which {given.source} sets as a whole: set one of its settings, such as {example}."
    tail = given.name.rpartition(".")[2]
    near = difflib.get_close_matches(given.name, known, 1) or [name for name in known if name.endswith(f".{tail}")]
    near = near or _with_one_underscore(given.name, known)
    hint = f" Did you mean {_spelled(near[0], given)}?" if near else ""
    return f"There is no setting {given.name}, which {given.source} sets.{hint}"


def _with_one_underscore(name: str, known: Collection[str]) -> list[str]:
    """`server_port` for `server.port`: the second underscore between section and name was forgotten."""
    flat = {one.replace(".", "_"): one for one in known}
    return [flat[close] for close in difflib.get_close_matches(name.replace(".", "_"), flat, 1)]


def _spelled(name: str, like: Given) -> str:
    return f"{name} ({variable(name)})" if like.where.endswith(")") else name
