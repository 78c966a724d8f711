"""Settings: which source wins, what is refused and with which hint, and that no secret is shown."""

import os
from pathlib import Path
from typing import Any

import pytest

from modelkeep.app import settings
from modelkeep.app.settings import Explained, InvalidSettings


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
    assert loaded.database.url == ""
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
        ("2", ".env"),
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


def test_settings_cannot_be_changed_after_they_are_read() -> None:
    loaded = settings.load()
    with pytest.raises(ValueError, match="frozen"):
        loaded.data = Path("x")
    with pytest.raises(AttributeError):
        loaded.server.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[server]\nprot = 1\n", "server.prot. Did you mean server.port?"),
        ("[sevrer]\nport = 1\n", "sevrer.port. Did you mean server.port?"),
        ("port = 1\n", "There is no setting port."),
        ('dta = "x"\n', "dta. Did you mean data?"),
        ("[server.tls]\ncert = 1\n", "server.tls."),
        ("server = 5\n", "There is no setting server."),
        ("[zzzzzz]\nqqqqqq = 1\n", "There is no setting zzzzzz.qqqqqq."),
    ],
)
def test_a_name_that_is_no_setting_is_refused_with_a_hint(text: str, hint: str) -> None:
    toml(text)
    assert hint in refusal()


def test_a_variable_that_is_no_setting_is_refused_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELKEEP_SERVER__PROT", "1")
    assert refusal() == "There is no setting server.prot. Did you mean server.port?"


def test_a_variable_of_a_misspelt_section_is_refused_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELKEEP_SERVRE__PORT", "1")
    assert refusal() == "There is no setting servre.port. Did you mean server.port?"


def test_variables_of_the_client_are_no_settings_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODELKEEP_URL", "MODELKEEP_API_KEY", "MODELKEEP_GRPC"):
        monkeypatch.setenv(name, "x")
    settings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVER__PORT", "s3cret"),
        ("SERVING__DEADLINE_S", "s3cret"),
        ("LOG__LEVEL", "s3cret"),
        ("SERVER", "s3cret"),
        ("SERVER__PORT", ""),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_not_repeated(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"MODELKEEP_{name}", value)
    message = refusal()
    assert name.lower().replace("__", ".") in message
    assert "s3cret" not in message


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
    assert settings.load(overrides=overrides).database.url == url
    assert explained("database.url", overrides=overrides).value == "***"
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
