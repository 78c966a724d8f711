"""Every setting, and the only place that reads the environment.

Later sources win: defaults, `modelkeep.toml`, `.env`, the environment (`MODELKEEP_SECTION__FIELD`), the command line. Each
room declares what it needs as a dataclass with a sentence a field; here they are put together, and each process is handed
its own and no more. A name that is no setting is an error, not a silence.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from modelkeep.api.settings import ApiSettings
from modelkeep.contracts.errors import Invalid
from modelkeep.infra.settings import DatabaseSettings, LogSettings
from modelkeep.serving.settings import ServingSettings
from modelkeep.worker.settings import WorkerSettings

CONFIG_FILE = Path("modelkeep.toml")
_ENV_FILE = Path(".env")
_PREFIX = "MODELKEEP_"
_ALWAYS_PASSED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
_SECRETS = frozenset({"database.url"})


class InvalidSettings(Invalid):
    """A setting is wrong."""

    code = "invalid_settings"


@dataclass(frozen=True)
class ServerSettings:
    """The address people and programs talk to, and how it is left."""

    host: Annotated[str, "Address to listen on; 127.0.0.1 admits this machine only."] = "127.0.0.1"
    port: Annotated[int, "Port to listen on; 0 takes any free one."] = 8080
    drain_s: Annotated[float, "How long requests in flight may take to finish after SIGTERM, in seconds."] = 30.0
    notice_s: Annotated[
        float, "How long to go on accepting after readiness went off, in seconds, so that a load balancer can notice."
    ] = 0.0
    environment: Annotated[
        str, "Environment variables to pass on to the processes, besides PATH, language and time zone: names with commas."
    ] = ""


@dataclass(frozen=True)
class RunnerSettings:
    """What each model's own process may use. They hold for versions validated from now on."""

    memory_mb: Annotated[int, "Address space of a runner, in MiB."] = 4096
    load_timeout_s: Annotated[float, "How long loading a model may take, in seconds."] = 60.0
    run_timeout_s: Annotated[float, "How long one run of a model may take, in seconds, before its process is ended."] = 30.0
    threads: Annotated[int, "Threads that a model's framework may use."] = 1


class Settings(BaseSettings):
    """All sections."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_nested_delimiter="__", frozen=True, extra="ignore")

    data: Annotated[Path, "Directory with everything that is kept: database, models, sockets."] = Path(".modelkeep")
    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    api: ApiSettings = ApiSettings()
    serving: ServingSettings = ServingSettings()
    runners: RunnerSettings = RunnerSettings()
    worker: WorkerSettings = WorkerSettings()
    log: LogSettings = LogSettings()


@dataclass(frozen=True)
class Explained:
    """One setting: its dotted name, its value as text (secrets hidden), where it comes from, and its sentence."""

    name: str
    value: str
    source: str
    about: str


def load(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read all sources; raises `InvalidSettings` with a sentence that names the setting."""
    return _load(_toml(config), overrides or {})


def explain(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> list[Explained]:
    """Return every setting with its value and where that comes from."""
    toml = _toml(config)
    settings = _load(toml, overrides or {})
    return [
        Explained(
            name, "***" if name in _SECRETS and "@" in str(value) else str(value), _source(name, toml, overrides or {}), about
        )
        for name, value, about in described(settings)
    ]


def described(settings: Settings) -> Iterator[tuple[str, object, str]]:
    """Yield name, value and sentence of each setting."""
    for section, info in Settings.model_fields.items():
        value = getattr(settings, section)
        if section == "data":
            yield section, value, str(info.metadata[0])
            continue
        hints = get_type_hints(type(value), include_extras=True)
        for one in fields(value):
            yield f"{section}.{one.name}", getattr(value, one.name), get_args(hints[one.name])[1]


def child_environment(settings: Settings) -> dict[str, str]:
    """Return all that our own processes see of the environment: no settings, and so no credentials."""
    names = (*_ALWAYS_PASSED, *(name.strip() for name in settings.server.environment.split(",")))
    return {name: os.environ[name] for name in names if name in os.environ}  # noqa: TID251 - this is the one place


def _load(toml: dict[str, Any], overrides: Mapping[str, Any]) -> Settings:
    _check_names(toml)
    merged: dict[str, Any] = {}
    for name, value in overrides.items():
        section, _dot, key = name.partition(".")
        if key:
            merged.setdefault(section, {})[key] = value
        else:
            merged[section] = value

    class Sources(Settings):
        """The settings, read from all places."""

        model_config = SettingsConfigDict(env_file=_ENV_FILE)

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[Any, ...]:
            """Order the sources, the strongest first."""
            del settings_cls, file_secret_settings
            return init_settings, env_settings, dotenv_settings, lambda: toml

    try:
        loaded = Sources(**merged)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InvalidSettings(f"The setting {name} is wrong: {first['msg']}.") from error
    except ValueError as error:
        raise InvalidSettings(f"The settings cannot be read: {error}.") from error
    return Settings.model_construct(**{name: getattr(loaded, name) for name in Settings.model_fields})


def _toml(config: Path | None) -> dict[str, Any]:
    path = config or CONFIG_FILE
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if config is not None:
            raise InvalidSettings(f"There is no configuration file {path}.") from error
        return {}
    except OSError as error:
        raise InvalidSettings(f"The configuration file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"The configuration file {path} cannot be read: {error}.") from error


def _known() -> set[str]:
    return {name for name, _value, _about in described(Settings.model_construct())}


def _check_names(toml: Mapping[str, Any]) -> None:
    """Refuse names that are no settings: a typing error must not become a default."""
    known = _known()
    given = []
    for section, value in toml.items():
        given += [f"{section}.{key}" for key in value] if isinstance(value, Mapping) else [section]
    for variable in os.environ:  # noqa: TID251 - this is the one place
        section, _dunder, key = variable.removeprefix(_PREFIX).lower().partition("__")
        if variable.startswith(_PREFIX) and key:
            given.append(f"{section}.{key}")
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise InvalidSettings(f"There is no setting {name}.{hint}")


def _source(name: str, toml: Mapping[str, Any], overrides: Mapping[str, Any]) -> str:
    section, _dot, key = name.partition(".")
    variable = _PREFIX + name.replace(".", "__").upper()
    if name in overrides:
        return "command line"
    if variable in {one.upper() for one in os.environ}:  # noqa: TID251 - this is the one place
        return f"environment ({variable})"
    if _ENV_FILE.is_file() and any(line.upper().startswith(f"{variable}=") for line in _ENV_FILE.read_text().splitlines()):
        return ".env"
    if name in toml or (isinstance(toml.get(section), Mapping) and key in toml[section]):
        return str(CONFIG_FILE)
    return "default"
