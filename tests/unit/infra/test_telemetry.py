"""Logs."""

import base64
import json
import logging
import os
import string
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modelkeep.infra import secrets, telemetry
from modelkeep.infra.redaction import HIDDEN, without_secrets
from modelkeep.infra.settings import LogSettings


def _fail(error: Exception) -> None:
    raise error


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_for_machines_has_the_names_of_the_elastic_common_schema(capsys: pytest.CaptureFixture[str]):
    telemetry.configure(LogSettings("json", "info"), role="api")
    structlog.get_logger("modelkeep.test").info("request", method="GET", path="/x", status=200, ms=3.5, model="m")
    (line,) = _lines(capsys)
    assert line["message"] == "request"
    assert line["log.level"] == "info"
    assert line["log.logger"] == "modelkeep.test"
    assert line["process.name"] == "api"
    assert line["http.request.method"] == "GET"
    assert line["http.response.status_code"] == 200
    assert line["event.duration"] == 3_500_000, "in nanoseconds, as the schema has it"
    assert line["event.outcome"] == "success"
    assert line["event.dataset"] == "modelkeep.api"
    assert line["service.name"] == "modelkeep"
    assert line["ecs.version"] == "8.11.0"
    assert line["process.pid"] == os.getpid()
    assert line["modelkeep.model"] == "m", "what the schema has no name for"
    assert str(line["@timestamp"]).endswith("Z")


def test_what_other_libraries_log_looks_the_same(capsys: pytest.CaptureFixture[str]):
    telemetry.configure(LogSettings("json", "info"), role="worker")
    logging.getLogger("some.library").warning("%d things", 3)
    (line,) = _lines(capsys)
    assert (line["message"], line["log.logger"], line["log.level"]) == ("3 things", "some.library", "warning")


def test_a_request_id_stands_in_every_line_of_its_request_and_in_no_other(capsys: pytest.CaptureFixture[str]):
    telemetry.configure(LogSettings("json", "info"), role="api")
    with telemetry.request("req_1"):
        structlog.get_logger().info("inside")
        logging.getLogger("library").error("inside too")
    structlog.get_logger().info("outside")
    assert [line.get("http.request.id") for line in _lines(capsys)] == ["req_1", "req_1", None]


def test_a_prediction_has_its_id_beside_the_requests(capsys: pytest.CaptureFixture[str]):
    telemetry.configure(LogSettings("json", "info"), role="server")
    with telemetry.request("req_1", "prd_1"):
        structlog.get_logger().info("inside")
    structlog.get_logger().info("named", prediction_id="prd_2")
    assert [(line.get("http.request.id"), line["modelkeep.prediction.id"]) for line in _lines(capsys)] == [
        ("req_1", "prd_1"),
        (None, "prd_2"),
    ]


def test_a_failed_request_says_so_in_the_schemas_words(capsys: pytest.CaptureFixture[str]):
    telemetry.configure(LogSettings("json", "info"), role="api")
    structlog.get_logger().info("request", status=503, code="overloaded", reason="queue")
    try:
        _fail(OSError("no room"))
    except OSError:
        logging.getLogger("library").exception("failed")
    refused, broken = _lines(capsys)
    assert (refused["event.outcome"], refused["error.code"], refused["event.reason"]) == ("failure", "overloaded", "queue")
    assert (broken["error.type"], broken["log.level"]) == ("OSError", "error")
    assert "OSError: no room" in str(broken["error.stack_trace"])


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_key_that_strays_into_a_line_is_blotted_out(form: str, capsys: pytest.CaptureFixture[str]):
    telemetry.configure(LogSettings(form, "info"), role="api")
    key, token = secrets.new_secret(secrets.KEY).reveal(), secrets.new_secret(secrets.SETUP).reveal()
    structlog.get_logger().info(f"got {key}", header=f"Bearer {key}", nested={"deep": [token]})
    logging.getLogger("library").warning("url was /x?key=%s", key)
    written = capsys.readouterr().err
    assert "[secret]" in written
    assert key not in written
    assert token not in written


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_is_told_whole(form: str, capsys: pytest.CaptureFixture[str]):
    telemetry.configure(LogSettings(form, "info"), role="api")
    try:
        int("the reason")
    except ValueError:
        structlog.get_logger().exception("it_failed")
    written = capsys.readouterr().err
    assert "it_failed" in written
    assert "ValueError: invalid literal for int() with base 10: 'the reason'" in written


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]):
    telemetry.configure(LogSettings("text", "warning"), role="api")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    written = capsys.readouterr().err
    assert "quiet" not in written
    assert "api: loud" in written


_SAFE = string.ascii_letters + string.digits
_near = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_password = st.text(_SAFE + "!$*+,-./:;=?@^_|~#&%[]{}()", min_size=12, max_size=30).map(lambda text: f"Qx{text}xQ")
_word = st.text(_SAFE, min_size=12, max_size=40).map(lambda text: f"Qx{text}xQ")


@st.composite
def _strays(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a secret, and a text with it in it: (what may not be written, text)."""
    before, after = draw(_near), draw(_near)
    match draw(st.sampled_from(["key", "cut", "token", "url", "bearer", "basic", "jwt", "parameter", "header", "field"])):
        case "key":
            secret = secrets.new_secret(draw(st.sampled_from([secrets.KEY, secrets.SETUP]))).reveal()
            return secret[4:], f"{before}{secret}{after}"
        case "cut":
            secret = secrets.new_secret(secrets.KEY).reveal()[: draw(st.integers(19, 49))]
            return secret[3:], f"{before}{secret}"
        case "token":
            secret = draw(_word)
            return secret, f"{before}token={secret}"
        case "url":
            secret = draw(_password)
            user = draw(st.text(string.ascii_lowercase, max_size=5))
            return secret, f"{before}postgresql://{user}:{secret}@db.local:5432/modelkeep {after}"
        case "bearer":
            secret = draw(_word)
            return secret, f"{before}Bearer {secret}"
        case "basic":
            secret = base64.b64encode(f"admin:{draw(_word)}".encode()).decode()
            return secret.rstrip("="), f"{before} Authorization: Basic {secret}"
        case "jwt":
            secret = f"eyJ{draw(_word)}.eyJ{draw(_word)}.{draw(_word)}"
            return secret[3:], f"{before} {secret}"
        case "parameter":
            secret = draw(_word)
            name = draw(st.sampled_from(["key", "sig", "api_key", "access_token", "X-Amz-Signature", "PASSWORD"]))
            return secret, f"{before}https://host/path?a=1&{name}={secret}&b=2"
        case "header":
            secret = draw(_word)
            return secret, f"{before}{{'X-API-Key': '{secret}', 'accept': '*/*'}}"
        case _:
            secret = draw(_word)
            return secret, f"{before}password: {secret}"


@dataclass
class _Held:
    """An object that shows what it holds."""

    inside: object


def _wrapped(text: str, ways: list[str]) -> Any:
    value: Any = text
    for way in ways:
        match way:
            case "list":
                value = [1, value]
            case "tuple":
                value = (value, None)
            case "dict":
                value = {"deep": value}
            case "name":
                value = {str(value): True}
            case "bytes":
                value = str(value).encode()
            case "object":
                value = _Held(value)
            case "set":
                value = {str(value)}
            case _:
                value = ValueError(value)
    return value


_ways = st.lists(st.sampled_from(["list", "tuple", "dict", "name", "bytes", "object", "set", "error"]), max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(stray=_strays(), ways=_ways, place=st.sampled_from(["event", "field", "name", "library", "exception", "bound"]))
@example(stray=("Qx1xQ", "postgresql://u:Qx1xQ@h"), ways=[], place="exception")
@example(stray=("Qx1xQ", "postgresql://u:Qx1xQ@h\x85\u2028"), ways=[], place="event")
@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_is_ever_written_wherever_it_stands(
    form: str, stray: tuple[str, str], ways: list[str], place: str, capsys: pytest.CaptureFixture[str]
):
    secret, text = stray
    telemetry.configure(LogSettings(form, "info"), role="api")
    value = _wrapped(text, ways)
    log = structlog.get_logger("fresh").new()
    match place:
        case "event":
            log.info(text, other=value)
        case "field":
            log.info("x", field=value)
        case "name":
            log.info("x", **{text: 1})
        case "library":
            logging.getLogger("library").warning("it was %s", value)
        case "bound":
            log.bind(field=value).info("x")
        case _:
            try:
                _fail(ValueError(value))
            except ValueError:
                log.exception("failed", field=value)
    written = capsys.readouterr().err
    assert secret not in written
    if form == "json":
        for line in written.splitlines():
            json.loads(line)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(" abcxyz.,/-", max_size=30),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcxyz_", max_size=8), inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_is_no_secret_stays_as_it_is(value: Any):
    assert without_secrets(value) == value


@pytest.mark.parametrize(
    "text",
    [
        "GET /api/v1/models/churn?limit=20&cursor=ver_01JABCDEFGHJKMNPQRSTVWXYZ0",
        "prd_01JABCDEFGHJKMNPQRSTVWXYZ0 answered by version 3",
        "http://127.0.0.1:8080/metrics",
        "postgresql://reader@db.local/modelkeep",
        "key key_01JABCDEFGHJKMNPQRSTVWXYZ0 was revoked by ops@example.org",
        "Basic checks passed",
    ],
)
def test_ordinary_lines_are_left_alone(text: str):
    assert without_secrets(text) == text


def test_what_stands_under_a_secrets_name_is_hidden_whole():
    fields = {"password": "a b", "Authorization": ["x"], "s3_secret": {"a": "b"}, "cookie": "c", "key_id": "k", "token": ""}
    assert without_secrets(fields) == {
        "password": HIDDEN,
        "Authorization": HIDDEN,
        "s3_secret": HIDDEN,
        "cookie": HIDDEN,
        "key_id": "k",
        "token": "",
    }


def test_a_value_that_holds_itself_is_written_all_the_same(capsys: pytest.CaptureFixture[str]):
    telemetry.configure(LogSettings("json", "info"), role="api")
    endless: list[object] = []
    endless.append(endless)
    structlog.get_logger().info("x", endless=endless)
    assert len(_lines(capsys)) == 1


@pytest.mark.timeout(60)  # work that grows with the square of the length takes minutes
@pytest.mark.parametrize("piece", ["a", "://", "://:", "mk_", "eyJ", "token=", "Bearer ", "password", "x-", "\\"])
def test_a_very_long_value_holds_nothing_up(piece: str):
    text = piece * (400_000 // len(piece))
    assert without_secrets(f"{text} token=a-secret-word").endswith(HIDDEN)
