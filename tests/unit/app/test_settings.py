"""Settings: which source wins, what is refused and with which hint, and that no secret is shown."""

import json
import os
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from annotated_types import Interval
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from modelkeep.app import settings
from modelkeep.app.settings import Explained, InvalidSettings
from modelkeep.contracts.secret import Secret


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and no variable of ours."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("MODELKEEP_"):
            monkeypatch.delenv(name)
    return tmp_path


def toml(text: str) -> None:
    Path("modelkeep.toml").write_text(text, encoding="utf-8")


def dotenv(text: str) -> None:
    Path(".env").write_text(text, encoding="utf-8")


def explained(name: str, **sources: Any) -> Explained:
    (found,) = [one for one in settings.explain(**sources) if one.name == name]
    return found


def refusal(**sources: Any) -> str:
    with pytest.raises(InvalidSettings) as refused:
        settings.load(**sources)
    return refused.value.message


def test_with_no_source_at_all_the_defaults_hold() -> None:
    loaded = settings.load()
    assert (loaded.server.host, loaded.server.port, loaded.data) == ("127.0.0.1", 8080, Path(".modelkeep"))
    assert not loaded.database.url
    assert loaded.serving.max_body_mb == 64


def test_each_source_wins_over_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [explained("server.port")]
    toml("[server]\nport = 1\n")
    seen.append(explained("server.port"))
    dotenv("MODELKEEP_SERVER__PORT=2\n")
    seen.append(explained("server.port"))
    monkeypatch.setenv("MODELKEEP_SERVER__PORT", "3")
    seen.append(explained("server.port"))
    seen.append(explained("server.port", overrides={"server.port": 4}))
    assert [(one.value, one.source) for one in seen] == [
        ("8080", "default"),
        ("1", "modelkeep.toml"),
        ("2", ".env (MODELKEEP_SERVER__PORT)"),
        ("3", "environment (MODELKEEP_SERVER__PORT)"),
        ("4", "command line"),
    ]
    assert settings.load(overrides={"server.port": 4}).server.port == 4


def test_sources_add_up_within_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    toml('data = "kept"\n[server]\nport = 1\ndrain_s = 5\n[serving]\ndefault_model = "m"\n')
    dotenv("MODELKEEP_SERVER__HOST=0.0.0.0\n")
    monkeypatch.setenv("MODELKEEP_SERVER__PORT", "3")
    loaded = settings.load(overrides={"server.notice_s": 2.0})
    assert (loaded.server.host, loaded.server.port, loaded.server.drain_s, loaded.server.notice_s) == ("0.0.0.0", 3, 5.0, 2.0)
    assert (loaded.serving.default_model, loaded.data) == ("m", Path("kept"))


def test_a_container_of_sagemaker_listens_where_it_is_told_unless_a_setting_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", "8081")
    assert (settings.load().server.host, settings.load().server.port) == ("0.0.0.0", 8081)
    assert explained("server.port").source == "environment (SAGEMAKER_BIND_TO_PORT)"
    toml('[server]\nhost = "127.0.0.1"\n')
    assert (settings.load().server.host, settings.load().server.port) == ("127.0.0.1", 8081)
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", "any")
    assert "SAGEMAKER_BIND_TO_PORT" in refusal()


@pytest.mark.parametrize("text", ["churn", "a=b=c", "=b", "a=", "a=b,", ",", " = "])
def test_hosts_that_name_no_deployment_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MODELKEEP_SERVING__HOSTS", text)
    assert refusal().startswith("The setting serving.hosts must be pairs like churn.example.org=churn")


def test_hosts_name_deployments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.load().serving.deployments_by_host == {}
    monkeypatch.setenv("MODELKEEP_SERVING__HOSTS", "one.example.org=m, Two.example.org:80 = n")
    assert settings.load().serving.deployments_by_host == {"one.example.org": "m", "Two.example.org:80": "n"}


def test_the_data_directory_is_set_like_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELKEEP_DATA", "there")
    assert settings.load().data == Path("there")
    assert settings.load(overrides={"data": "here"}).data == Path("here")


def test_a_named_file_is_read_instead_of_the_usual_one(tmp_path: Path) -> None:
    toml("[server]\nport = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("[server]\nport = 2\n", encoding="utf-8")
    assert settings.load(other).server.port == 2
    assert "missing.toml" in refusal(config=tmp_path / "missing.toml")


def test_a_named_file_is_named_as_the_source_and_in_errors(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[server]\nport = 2\n", encoding="utf-8")
    assert explained("server.port", config=other).source == str(other)
    other.write_text("[server]\nport = -2\n", encoding="utf-8")
    assert refusal(config=other) == (
        f"The setting server.port must be a whole number from 0 to 65535; the value from {other} is not."
    )


def test_settings_cannot_be_changed_after_they_are_read() -> None:
    loaded = settings.load()
    with pytest.raises(ValueError, match="frozen"):
        loaded.data = Path("x")
    with pytest.raises(AttributeError):
        loaded.server.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[server]\nprot = 1\n", "There is no setting server.prot, which modelkeep.toml sets. Did you mean server.port?"),
        ("[sevrer]\nport = 1\n", "There is no setting sevrer.port, which modelkeep.toml sets. Did you mean server.port?"),
        ("port = 1\n", "There is no setting port, which modelkeep.toml sets. Did you mean server.port?"),
        ('dta = "x"\n', "There is no setting dta, which modelkeep.toml sets. Did you mean data?"),
        ("[server.tls]\ncert = 1\n", "There is no setting server.tls, which"),
        (
            "server = 5\n",
            "server is a section, which modelkeep.toml sets as a whole: set one of its settings, such as server.host.",
        ),
        ("[zzzzzz]\nqqqqqq = 1\n", "There is no setting zzzzzz.qqqqqq, which modelkeep.toml sets."),
    ],
)
def test_a_name_that_is_no_setting_is_refused_with_a_hint(text: str, hint: str) -> None:
    toml(text)
    assert hint in refusal()


@pytest.mark.parametrize("source", [".env", "environment"])
@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("MODELKEEP_SERVER__PROT", " Did you mean server.port (MODELKEEP_SERVER__PORT)?"),
        ("MODELKEEP_SERVRE__PORT", " Did you mean server.port (MODELKEEP_SERVER__PORT)?"),
        ("MODELKEEP_PORT", " Did you mean server.port (MODELKEEP_SERVER__PORT)?"),
        ("MODELKEEP_SERVER_PORT", " Did you mean server.port (MODELKEEP_SERVER__PORT)?"),
        ("MODELKEEP_LOG_LEVEL", " Did you mean log.level (MODELKEEP_LOG__LEVEL)?"),
        ("MODELKEEP_SERVER__GRPC_TLS_KEY", " Did you mean server.tls_key (MODELKEEP_SERVER__TLS_KEY)?"),
        ("MODELKEEP_SERVER__GRPC_TLS_CLIENT_CA", " Did you mean server.tls_client_ca (MODELKEEP_SERVER__TLS_CLIENT_CA)?"),
        ("MODELKEEP_SERVER__GRPC_TLS_CERTIFICATE", " Did you mean server.tls_certificate (MODELKEEP_SERVER__TLS_CERTIFICATE)?"),
        ("MODELKEEP_DTA", " Did you mean data (MODELKEEP_DATA)?"),
        ("modelkeep_server__prot", " Did you mean server.port (MODELKEEP_SERVER__PORT)?"),
        ("MODELKEEP_ZZZZZZZZZ", ""),
        ("MODELKEEP_SERVER___PORT", " Did you mean server.port (MODELKEEP_SERVER__PORT)?"),
    ],
)
def test_a_variable_that_is_no_setting_is_refused_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, source: str, variable: str, hint: str
) -> None:
    if source == ".env":
        dotenv(f"OTHER=1\n{variable}=7\n")
    else:
        monkeypatch.setenv(variable, "7")
    message = refusal()
    assert message.startswith("There is no setting ")
    assert f"{source} ({variable}) sets." in message
    assert message.endswith(f"sets.{hint}")


def test_a_section_as_a_variable_names_one_of_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELKEEP_SERVER", "{}")
    assert "server is a section" in refusal()
    assert "MODELKEEP_SERVER__HOST" in refusal()


def test_what_kubernetes_says_of_a_service_of_our_name_is_no_setting_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "8080",
        "SERVICE_PORT_HTTP": "8080",
        "PORT": "tcp://10.0.0.1:8080",
        "PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "PORT_8080_TCP_PROTO": "tcp",
        "PORT_8080_TCP_PORT": "8080",
        "PORT_8080_TCP_ADDR": "10.0.0.1",
    }.items():
        monkeypatch.setenv(f"MODELKEEP_{name}", value)
    assert settings.load().server.port == 8080


def test_variables_of_the_client_are_no_settings_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ("MODELKEEP_URL", "MODELKEEP_API_KEY", "MODELKEEP_GRPC", "MODELKEEP_ADMIN_EMAIL", "MODELKEEP_ADMIN_PASSWORD")
    for name in ours:
        monkeypatch.setenv(name, "x")
    settings.load()
    dotenv("".join(f"export {name}=x\n" for name in ours))
    settings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVER__PORT", "s3cret"),
        ("SERVING__DEADLINE_S", "s3cret"),
        ("LOG__LEVEL", "s3cret"),
        ("SERVER", "s3cret"),
        ("DATABASE__POOL_SIZE", "s3cret"),
        ("SERVER__PORT", ""),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_not_repeated(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"MODELKEEP_{name}", value)
    message = refusal()
    assert name.lower().replace("__", ".") in message
    assert "s3cret" not in message


NUMBERS = {
    f"{section}.{field.name}": (get_args(hint)[0], next(mark for mark in get_args(hint) if isinstance(mark, Interval)))
    for section, value in dict(settings.Settings.model_construct()).items()
    if is_dataclass(value)
    for field in fields(value)
    if get_args(hint := get_type_hints(type(value), include_extras=True)[field.name])[0] in {int, float}
}
SOURCES = ("toml", ".env", "environment", "command line")


def read_from(source: str, name: str, value: str) -> settings.Settings:
    """What is loaded when `source` alone says `name` = `value`."""
    Path("modelkeep.toml").unlink(missing_ok=True)
    Path(".env").unlink(missing_ok=True)
    section, _dot, key = name.partition(".")
    variable = f"MODELKEEP_{section}__{key}".upper()
    with pytest.MonkeyPatch.context() as patch:
        match source:
            case "toml":
                toml(f"[{section}]\n{key} = {value}\n")
            case ".env":
                dotenv(f"{variable}={value}\n")
            case "environment":
                patch.setenv(variable, value)
            case _:
                return settings.load(overrides={name: float(value) if "n" in value else json.loads(value)})
        return settings.load()


@st.composite
def outside(draw: st.DrawFn, name: str) -> str:
    """A number outside the range of the setting, as text."""
    kind, span = NUMBERS[name]
    if kind is int:
        return str(draw(st.integers(max_value=span.ge - 1) | st.integers(min_value=span.le + 1)))
    strange = st.sampled_from(["nan", "inf", "-inf"])
    beyond = st.floats(max_value=span.ge, exclude_max=True, allow_infinity=False) | st.floats(
        min_value=span.le, exclude_min=True, allow_infinity=False
    )
    return draw(strange | beyond.map(repr))


@given(data=st.data(), name=st.sampled_from(sorted(NUMBERS)), source=st.sampled_from(SOURCES))
@given_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_no_number_outside_its_range_is_accepted_from_any_source(data: st.DataObject, name: str, source: str) -> None:
    value = data.draw(outside(name))
    with pytest.raises(InvalidSettings) as refused:
        read_from(source, name, value)
    kind, span = NUMBERS[name]
    assert refused.value.message.startswith(
        f"The setting {name} must be a {'whole ' if kind is int else ''}number from {span.ge} to {span.le}; the value from "
    )


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_the_ends_of_a_range_belong_to_it(name: str, source: str) -> None:
    _kind, span = NUMBERS[name]
    section, _dot, key = name.partition(".")
    for end in (span.ge, span.le):
        assert getattr(getattr(read_from(source, name, str(end)), section), key) == end


def test_every_number_has_a_range_that_holds_its_default() -> None:
    for one in settings.described(settings.Settings.model_construct()):
        if isinstance(one.value, (int, float)):
            _kind, span = NUMBERS[one.name]
            assert span.ge <= one.value <= span.le, one.name


def test_truth_is_no_number() -> None:
    toml("[server]\nport = true\n")
    assert "must be a whole number" in refusal()


@pytest.mark.parametrize("name", ["DATA", "SERVER__HOST", "WORKER__NAME"])
def test_an_empty_text_is_refused_where_something_is_needed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"MODELKEEP_{name}", "")
    assert "not empty" in refusal()


def test_a_choice_names_what_there_is_to_choose_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELKEEP_LOG__LEVEL", "loud")
    assert refusal() == (
        "The setting log.level must be debug, info, warning or error; "
        "the value from the environment (MODELKEEP_LOG__LEVEL) is not."
    )


@pytest.mark.parametrize(
    "url",
    ["mysql://user:s3cret@host/name", "nonsense", "postgres", "sqlite:///", "sqlite:///:memory:", "sqlite:///?mode=memory"],
)
def test_a_database_of_another_kind_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("MODELKEEP_DATABASE__URL", url)
    assert "database.url must be an address of the form sqlite:///PATH or postgresql://..." in refusal()
    assert "s3cret" not in refusal()


def test_an_unreadable_dotenv_is_named() -> None:
    Path(".env").write_bytes(b"MODELKEEP_DATA=\xff\xfe\n")
    assert ".env cannot be read" in refusal()


@pytest.mark.parametrize("content", [b"[server\n", b"\xff\xfe", b"port = \n"])
def test_a_file_that_cannot_be_read_is_named(content: bytes) -> None:
    Path("modelkeep.toml").write_bytes(content)
    assert "modelkeep.toml cannot be read" in refusal()


def test_a_folder_in_place_of_the_file_is_named() -> None:
    Path("modelkeep.toml").mkdir()
    assert "modelkeep.toml cannot be read" in refusal()


def test_every_setting_is_explained_by_a_sentence() -> None:
    found = settings.explain()
    assert len({one.name for one in found}) == len(found) > 20
    for one in found:
        assert one.about.endswith("."), one.name
        assert one.source == "default"


@pytest.mark.parametrize("source", ["toml", ".env", "environment", "command line"])
def test_a_password_in_the_database_address_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    url = "postgresql://user:s3cret@host/name"
    overrides: dict[str, Any] = {}
    match source:
        case "toml":
            toml(f'[database]\nurl = "{url}"\n')
        case ".env":
            dotenv(f"MODELKEEP_DATABASE__URL={url}\n")
        case "environment":
            monkeypatch.setenv("MODELKEEP_DATABASE__URL", url)
        case _:
            overrides = {"database.url": url}
    assert settings.load(overrides=overrides).database.url.reveal() == url
    assert explained("database.url", overrides=overrides).value == "postgresql://user:***@host/name"
    assert "s3cret" not in repr(settings.explain(overrides=overrides))


def test_an_address_without_a_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELKEEP_DATABASE__URL", "sqlite:///kept.db")
    assert explained("database.url").value == "sqlite:///kept.db"


def test_children_see_nothing_of_the_environment_but_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELKEEP_DATABASE__URL", "postgresql://user:s3cret@host/name")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    monkeypatch.setenv("LANG", "C.UTF-8")
    toml('[server]\nenvironment = "HTTPS_PROXY, NOT_SET"\n')
    seen = settings.child_environment(settings.load())
    assert seen["HTTPS_PROXY"] == "http://proxy"
    assert seen["LANG"] == "C.UTF-8"
    assert seen.keys() <= {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "HTTPS_PROXY"}


def test_what_vertex_ai_tells_its_container_counts_where_nothing_else_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIP_HTTP_PORT", "9001")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/v1/endpoints/1/deployedModels/2:predict")
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/v1/endpoints/1/deployedModels/2")
    monkeypatch.setenv("AIP_STORAGE_URI", "gs://elsewhere")
    loaded = settings.load()
    assert (loaded.server.port, loaded.serving.predict_route) == (9001, "/v1/endpoints/1/deployedModels/2:predict")
    assert loaded.serving.health_route == "/v1/endpoints/1/deployedModels/2"
    assert explained("server.port").source == "environment (AIP_HTTP_PORT)"
    toml("[server]\nport = 1\n")
    assert settings.load().server.port == 1
    monkeypatch.setenv("AIP_HTTP_PORT", "")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/api/v1/models")
    assert "the environment (AIP_PREDICT_ROUTE)" in refusal()
    assert "/api/v1/models" not in refusal()


@pytest.mark.parametrize("name", ["predict_route", "health_route"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "predict",
        "//predict",
        "/predict/",
        "/a/../api",
        "/./a",
        "/a b",
        "/a?b",
        "/a#b",
        "/a%2Fb",
        "/ż",
        "/a\n",
        "/api",
        "/api/v1/predict/m",
        "/v2",
        "/v2/models/m/infer",
        "/v1/models",
        "/v1/models/m:predict",
        "/v1/models:x",
        "/metrics",
        "/healthz",
        "/readyz",
        "/docs",
        "/invocations",
        "/predict/x",
        "/health/x",
    ],
)
def test_a_route_that_hides_ours_or_is_no_path_is_refused_at_start(name: str, path: str) -> None:
    refused = refusal(overrides={f"serving.{name}": path})
    assert refused.startswith(f"The setting serving.{name} must be ")
    assert "nothing of Modelkeep's own lies" in refused


def test_the_usual_routes_and_free_ones_are_taken() -> None:
    for path in ("", "/predict", "/v1/endpoints/1/deployedModels/2:predict", "/predictions", "/v1", "/a/b.c/d~e@f"):
        assert settings.load(overrides={"serving.predict_route": path}).serving.predict_route == path
    for path in ("", "/health", "/v1/endpoints/1/deployedModels/2", "/ready"):
        assert settings.load(overrides={"serving.health_route": path}).serving.health_route == path
    assert refusal(overrides={"serving.predict_route": "/health"})
    assert refusal(overrides={"serving.health_route": "/predict"})


SECRET = [one.name for one in settings.described(settings.Settings.model_construct()) if isinstance(one.value, Secret)]


def test_the_settings_that_are_secrets_are_those_that_look_like_it() -> None:
    looks = re.compile(r"(?:secret|password|token|url)(?!.*_file)")
    looking = [
        one.name
        for one in settings.described(settings.Settings.model_construct())
        if isinstance(one.value, str | Secret) and looks.search(one.name)
    ]
    assert looking == SECRET == ["database.url", "storage.secret_access_key", "serving.cache_redis_url", "limits.redis_url"]


@pytest.mark.parametrize("name", SECRET)
@pytest.mark.parametrize("source", ["toml", ".env", "environment", "command line"])
def test_a_secret_comes_from_a_file_in_every_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, source: str
) -> None:
    text = f"{'redis' if name.endswith('redis_url') else 'postgresql'}://user:s3cret@host/name"
    (tmp_path / "secret").write_text(f"{text}\n")
    section, _dot, key = name.partition(".")
    variable = f"MODELKEEP_{section.upper()}__{key.upper()}_FILE"
    overrides: dict[str, Any] = {}
    match source:
        case "toml":
            toml(f'[{section}]\n{key}_file = "{tmp_path}/secret"\n')
        case ".env":
            dotenv(f"{variable}={tmp_path}/secret\n")
        case "environment":
            monkeypatch.setenv(variable, str(tmp_path / "secret"))
        case _:
            overrides = {f"{name}_file": str(tmp_path / "secret")}
    loaded = settings.load(overrides=overrides)
    assert getattr(getattr(loaded, section), key).reveal() == text
    assert explained(name, overrides=overrides).source.endswith(", from a file")
    assert "s3cret" not in repr([loaded, settings.explain(overrides=overrides)])


@pytest.mark.parametrize("content", [None, b"", b"one\ntwo\n", b"\xff\xfe"])
def test_a_file_that_holds_no_secret_is_refused_without_a_word_of_it(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    said = refusal(overrides={"database.url_file": str(tmp_path / "secret")})
    assert said.startswith("The file of database.url_file, which the command line names, ")
    assert "two" not in said


def test_only_secrets_come_from_files() -> None:
    toml('[server]\nhost_file = "x"\n')
    assert "There is no setting server.host_file" in refusal()
