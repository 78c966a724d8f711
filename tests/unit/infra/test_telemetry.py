"""Logs."""

import json
import logging

import pytest
import structlog

from modelkeep.infra import secrets, telemetry
from modelkeep.infra.settings import LogSettings


@pytest.fixture(autouse=True)
def _restored():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_for_machines_has_the_names_of_the_elastic_common_schema(capsys: pytest.CaptureFixture[str]):
    telemetry.configure(LogSettings("json", "info"), role="api")
    structlog.get_logger("modelkeep.test").info("request", method="GET", path="/x", status=200, ms=3)
    (line,) = _lines(capsys)
    assert line["message"] == "request"
    assert line["log.level"] == "info"
    assert line["log.logger"] == "modelkeep.test"
    assert line["process.name"] == "api"
    assert line["http.request.method"] == "GET"
    assert line["http.response.status_code"] == 200
    assert line["modelkeep.ms"] == 3
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
