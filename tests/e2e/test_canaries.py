"""A secret is planted in every place for one, and nothing that an installation shows or leaves behind has any of them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from fixtures.artifacts import onnx_identity
from fixtures.canaries import canary, found_in, found_in_file, found_in_processes
from fixtures.databases import new_postgres_database
from fixtures.installation import Installation, eventually
from fixtures.valkey import Valkey
from modelkeep.app.settings import Settings, described
from modelkeep.contracts.secret import Secret
from modelkeep.infra.certificates import Authority
from modelkeep.infra.envelopes import new_master_key

MEANT_TO_HOLD = {"setup-token", "site.key"}
EMAIL = "ada@example.org"


class Planted:
    """An installation over PostgreSQL with a secret in every setting that is one, and what it has answered."""

    def __init__(self, folder: Path, postgres: str) -> None:
        self.folder = folder
        database = new_postgres_database(postgres)
        self.database = database.rpartition("/")[2]
        self.owner = database
        places = ("database", "store", "redis", "header", "query", "password", "wrong", "body")
        self.secrets = {name: canary(name) for name in places}
        self.shared = Valkey(folder, self.secrets["redis"])
        in_files = {
            "DATABASE__URL": database.replace("postgres@", f"postgres:{self.secrets['database']}@"),
            "STORAGE__SECRET_ACCESS_KEY": self.secrets["store"],
            "LIMITS__REDIS_URL": self.shared.url,
            "SERVING__CACHE_REDIS_URL": self.shared.url,
        }
        self.settings = {name.lower().replace("__", ".") for name in in_files}
        environment = {}
        for name, text in in_files.items():
            file = folder / name.lower()
            file.write_text(text)
            environment[f"MODELKEEP_{name}_FILE"] = str(file)
        master = folder / "master-keys"
        line = new_master_key("planted")
        master.write_text(f"{line}\n")
        self.secrets["master key"] = line.split()[1]
        environment["MODELKEEP_STORAGE__MASTER_KEYS_FILE"] = str(master)
        Authority(folder, datetime.now(UTC)).sign_server(["127.0.0.1", "localhost"], days=1, force=True)
        self.secrets["key of TLS"] = (folder / "server.key").read_text().splitlines()[1]
        environment["MODELKEEP_SERVER__TLS_CERTIFICATE"] = str(folder / "server.pem")
        environment["MODELKEEP_SERVER__TLS_KEY"] = str(folder / "server.key")
        environment["MODELKEEP_AUDIT__FILE"] = str(folder / "data" / "audit.jsonl")
        environment["MODELKEEP_AUDIT__SINK_CONTENTS"] = "all"
        environment["MODELKEEP_LOG__LEVEL"] = "debug"
        self.environment = environment
        self.house = Installation(folder / "data", **environment)
        self.house.authority = str(folder / "ca.pem")
        self.seen: list[tuple[str, bytes]] = []
        self.handed_out: list[str] = []

    def start(self) -> None:
        self.shared.start()
        self.house.start().wait()
        token_file = self.house.data / "setup-token"
        eventually(token_file.exists, "a setup token")
        self.handed_out.append(token_file.read_text().strip())
        body = {"token": self.handed_out[0], "name": "ada", "email": EMAIL, "password": self.secrets["password"]}
        answer = self.asked("POST", "setup", json=body)
        self.house.key = answer["key"]["secret"]
        self.handed_out.append(self.house.key)

    @property
    def all(self) -> list[str]:
        return [*self.secrets.values(), *self.handed_out, *(self.house.data / "site.key").read_text().split()]

    def ask(self, method: str, path: str, **request: object) -> httpx.Response:
        """Ask, and keep what was answered: the head of it, too."""
        url = f"{self.house.url}{path}"
        answer = httpx.request(method, url, timeout=30, verify=self.house.trust, **request)  # type: ignore[arg-type]
        head = "".join(f"{name}: {value}\n" for name, value in answer.headers.items())
        self.seen.append((f"{method} {path}", head.encode() + answer.content))
        return answer

    def asked(self, method: str, path: str, **request: object) -> dict[str, Any]:
        """Ask for something that has a secret in its answer, as it should."""
        url = f"{self.house.url}/api/v1/{path}"
        answer = httpx.request(method, url, timeout=30, verify=self.house.trust, **request)  # type: ignore[arg-type]
        return dict(answer.raise_for_status().json())

    def walk(self) -> None:
        """Use every door, rightly and wrongly, with secrets wherever a caller may put one."""
        mine = {"X-API-Key": self.house.key}
        file = self.folder / "model.onnx"
        file.write_bytes(onnx_identity(1))
        with self.house.client() as client:
            client.push(file, "churn")
            client.predict("churn", [[1.0, 2.0]])
        strange = {"Cookie": f"session={self.secrets['header']}", "User-Agent": self.secrets["header"]}
        for credential in (
            {"X-API-Key": self.secrets["wrong"]},
            {"Authorization": f"Bearer {self.secrets['wrong']}"},
            {},
            mine,
        ):
            for path in (
                "/api/v1/models",
                "/api/v1/keys",
                "/metrics",
                "/v2/models/churn",
                "/nowhere",
                "/readyz",
                "/api/v1/safety",
            ):
                self.ask(
                    "GET", f"{path}?api_key={self.secrets['query']}&token={self.handed_out[0]}", headers=credential | strange
                )
            for path in ("/api/v1/keys", "/api/v1/models", "/api/v1/auth/refresh", "/v2/repository/models/churn/load"):
                self.ask("POST", path, headers=credential | strange, json={"password": self.secrets["body"], "name": 1})
                self.ask("POST", path, headers=credential | strange, content=self.secrets["body"].encode())
            for path in (
                "/api/v1/predict/churn",
                "/v2/models/churn/infer",
                "/invocations",
            ):  # whose bodies are kept, on purpose
                self.ask("POST", path, headers=credential | strange, json={"inputs": [["x", 1]]})
        self._log_in(mine)

    def _log_in(self, mine: dict[str, str]) -> None:
        right = {"email": EMAIL, "password": self.secrets["password"]}
        for wrong in (
            right | {"password": self.secrets["wrong"]},
            right | {"email": self.secrets["wrong"]},
            {"x": self.secrets["body"]},
        ):
            self.ask("POST", "/api/v1/auth/login", json=wrong)
        tokens = self.asked("POST", "auth/login", json=right)
        later = self.asked("POST", "auth/refresh", json={"refresh_token": tokens["refresh_token"]})
        made = self.asked("POST", "keys", headers=mine, json={"name": "ci", "scopes": ["predict"]})
        rotated = self.asked("POST", f"keys/{made['id']}/rotate", headers=mine, json={})
        self.handed_out += [made["secret"], rotated["secret"]]
        self.handed_out += [one[name] for one in (tokens, later) for name in ("access_token", "refresh_token")]
        person = {"Authorization": f"Bearer {later['access_token']}"}
        self.ask("POST", "/api/v1/groups", headers=person, json={"name": "crew"})
        granted = {"subject_kind": "key", "subject": made["id"], "role": "predictor", "kind": "workspace", "on": "default"}
        self.ask("POST", "/api/v1/grants", headers=person, json=granted)
        for path in ("me", "me/sessions", "keys", "users", "audit?limit=500", "predictions", "deployments"):
            self.ask("GET", f"/api/v1/{path}", headers=person)
        for path in ("audit/export", "workspaces", "groups", "grants", "models"):
            self.ask("GET", f"/api/v1/{path}", headers=person)
        self.ask("POST", "/api/v1/auth/signing-keys", headers=person)
        self.ask("GET", "/api/v1/auth/jwks")

    def doctor(self) -> bytes:
        """What `modelkeep doctor` says of the same settings."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "MODELKEEP_API_KEY": self.house.key,
            "MODELKEEP_CA_FILE": str(self.folder / "ca.pem"),
            **self.environment,
        }
        command = [sys.executable, "-m", "modelkeep.app.cli", "doctor", "--data", str(self.house.data), "--url", self.house.url]
        done = subprocess.run([*command, "--json"], capture_output=True, timeout=90, cwd=self.folder, env=environment)
        assert b"database.url" in done.stdout
        return done.stdout + done.stderr

    def dump(self) -> bytes:
        """All rows of all tables, as text and as bytes."""
        with closing(psycopg.connect(self.owner)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            )
            tables = cursor.fetchall()
            assert len(tables) > 20
            parts = []
            for schema, table in tables:
                with cursor.copy(f'COPY (SELECT * FROM "{schema}"."{table}") TO STDOUT (FORMAT binary)') as rows:
                    parts += [bytes(row) for row in rows]
        return b"".join(parts)

    @property
    def processes(self) -> list[psutil.Process]:
        return [self.house.supervisor, *self.house.supervisor.children(recursive=True)]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, postgres: str) -> Iterator[Planted]:
    """An installation that has been used with all of them; it goes on running."""
    one = Planted(tmp_path_factory.mktemp("planted"), postgres)
    try:
        one.start()
        one.walk()
        yield one
    finally:
        one.house.stop()
        one.shared.stop()


def test_a_secret_is_planted_in_every_setting_that_is_one(planted: Planted) -> None:
    secret = {one.name for one in described(Settings.model_construct()) if isinstance(one.value, Secret)}
    assert secret == planted.settings
    assert len(planted.all) > 15


def test_no_answer_has_a_secret_of_it_but_the_one_that_was_asked_for(planted: Planted) -> None:
    assert len(planted.seen) > 60
    assert {what: found for what, body in planted.seen if (found := found_in(body, planted.all))} == {}


def test_no_log_and_no_doctor_has_one(planted: Planted) -> None:
    assert planted.house.log.stat().st_size > 1000
    assert found_in_file(planted.house.log, set(planted.all) - {planted.handed_out[0]}) == []
    assert found_in(planted.doctor(), planted.all) == []


def test_no_row_of_the_database_has_one(planted: Planted) -> None:
    dump = planted.dump()
    assert EMAIL.encode() in dump  # the control: it is all there, as it was written
    assert found_in(dump, planted.all) == []


def test_no_file_has_one_but_those_that_are_meant_to(planted: Planted) -> None:
    files = [path for path in planted.house.data.rglob("*") if path.is_file() and path.name not in MEANT_TO_HOLD]
    assert len(files) > 3
    assert b"key.rotate" in (planted.house.data / "audit.jsonl").read_bytes()  # what goes elsewhere is among them
    assert {str(path): found for path in files if (found := found_in_file(path, planted.all))} == {}
    assert not (planted.house.data / "setup-token").exists()


def test_no_command_line_and_no_environment_of_a_process_has_one(planted: Planted) -> None:
    assert len(planted.processes) > 4
    assert found_in_processes(planted.processes, planted.all) == []


def test_what_leaks_is_found_in_each_of_these_places(planted: Planted) -> None:
    """The control: a name that everybody may see is where each search looks, and is found there."""
    assert found_in(b"".join(body for _what, body in planted.seen), ("churn",)) != []
    assert found_in(planted.dump(), ("churn",)) != []
    assert found_in_file(planted.house.log, ("server",)) != []
    assert found_in_processes(planted.processes, (str(planted.house.data),)) != []
