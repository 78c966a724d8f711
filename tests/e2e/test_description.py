"""The OpenAPI document against a real installation: its pages, who may do what, and random requests of every kind of key."""

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlparse

import httpx
import numpy as np
import onnx
import pytest

from fixtures.access import filled, table
from fixtures.artifacts import onnx_identity
from fixtures.described import document
from fixtures.installation import Installation, installed
from modelkeep.contracts.access import Scope

EXAMPLES = int(os.environ.get("EXAMPLES", "2"))
LONG = 10
CONFIG = Path(__file__).with_name("schemathesis.toml")
TAKE_A_COOKIE = ("/api/v1/auth/browser/refresh", "/api/v1/auth/browser/logout")
NO_KEY = "no key"


class _References(HTMLParser):
    """Everything that a page has a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = {"script": "src", "link": "href", "img": "src", "iframe": "src", "redoc": "spec-url"}
        self.found += [value for name, value in attrs if value and name == wanted.get(tag)]


# ---- pages


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_pages_of_the_documentation_need_no_outside_address(house: Installation, page: str):
    references = _References()
    with house.http() as http:
        answer = http.get(page)
        references.feed(answer.text)
        scripted = re.findall(r"""url: ['"]([^'"]+)['"]""", answer.text)
        fetched = [urljoin(house.url + page, one) for one in references.found + scripted]
        assert f"{house.url}/openapi.json" in fetched
        assert len(fetched) >= 3
        for address in fetched:
            assert address.startswith(house.url + "/"), address
            part = http.get(address)
            assert part.status_code == 200
            assert len(part.content) > 100
        policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    outside = [source for source in re.findall(r"\S+", policy) if urlparse(source).netloc or source == "*"]
    assert outside == []


def test_the_explorer_asks_nobody_whether_the_document_is_valid(house: Installation):
    with house.http() as http:
        page = http.get("/docs").text
    assert re.search(r'"validatorUrl":\s*null', page)


def test_the_document_that_is_served_is_the_published_one(house: Installation):
    with house.http() as http:
        served = http.get("/openapi.json")
    assert served.json() == document()


def test_a_browser_gets_the_pages_with_the_key_as_a_password(house: Installation):
    basic = {"Authorization": "Basic " + base64.b64encode(f"me:{house.key}".encode()).decode()}
    for path in ("/docs", "/redoc", "/openapi.json", "/static-offline-docs/swagger-ui-bundle.js"):
        assert httpx.get(house.url + path).headers["www-authenticate"].startswith("Basic")
        assert httpx.get(house.url + path, headers=basic).status_code == 200


def test_the_command_prints_the_document_without_a_server(house: Installation, tmp_path: Path):
    house.command("openapi", "-o", "api.json", cwd=tmp_path)
    assert (tmp_path / "api.json").read_bytes() == (Path(__file__).parents[2] / "docs/reference/openapi.json").read_bytes()
    assert house.command("openapi", cwd=tmp_path) == (tmp_path / "api.json").read_text(encoding="utf-8")


# ---- access


@pytest.fixture(scope="module")
def scoped(house: Installation) -> dict[str, str]:
    """A key of each scope in the shared installation."""
    with house.http() as http:
        return {scope: secret_of(http, scope, scope) for scope in Scope}


def secret_of(http: httpx.Client, name: str, scope: str) -> str:
    """Make a key that no rate refuses."""
    asked = {"name": name, "scopes": [scope], "rate": "unlimited"}
    return str(http.post("/api/v1/keys", json=asked).raise_for_status().json()["secret"])


ABOUT_A_PLACE = ("/api/v1/grants", "/api/v1/authz")
"""Who may ask there depends on the place that the query or the body names."""


@pytest.mark.parametrize("held", [NO_KEY, "unknown key", *Scope])
def test_each_key_opens_what_the_table_says_and_nothing_else(house: Installation, scoped: dict[str, str], held: str):
    key = {NO_KEY: None, "unknown key": "mk_nobody"}.get(held, scoped.get(held))
    wrong = []
    with house.http() as http:
        del http.headers["X-API-Key"]
        for (method, path), who in table().items():
            answer = http.request(
                method, filled(path).replace("...", "redoc.standalone.js"), json={}, headers={"X-API-Key": key} if key else {}
            )
            said = answer.json() if answer.headers.get("content-type", "").endswith(("/json", "+json")) else {}
            status, refused = answer.status_code, answer.status_code == 403 and said.get("code", "forbidden") == "forbidden"
            if who is None:
                right = (status != 401 or path in TAKE_A_COOKIE) and not refused
            elif path.startswith(ABOUT_A_PLACE) and held in set(Scope):
                right = status != 401
            elif held not in set(Scope):
                right = status == 401
            else:
                right = refused == (held not in {who or held, Scope.ADMIN}) and status != 401
            if not right:
                wrong.append(f"{method} {path}: {status}")
    assert wrong == []


# ---- random requests


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation to be asked anything, with models of the names that the document's examples have."""
    folder = tmp_path_factory.mktemp("own")
    with installed(folder / "data") as installation:
        file = folder / "model.onnx"
        file.write_bytes(onnx_identity(onnx.helper.np_dtype_to_tensor_dtype(np.dtype("float32"))))
        with installation.client() as client:
            for name in ("churn", "iris"):
                client.push(file, name)
                client.predict(name, [[1.0, 2.0]])
        yield installation


@pytest.mark.timeout(400 + 60 * EXAMPLES)
@pytest.mark.parametrize("held", [NO_KEY, *Scope])
def test_fuzzed_with_each_key_no_answer_is_a_fault_of_ours_or_undocumented(own: Installation, held: str, tmp_path: Path):
    with own.http() as http:
        secret = secret_of(http, held, held if held in set(Scope) else "predict")
        file = tmp_path / "openapi.json"
        file.write_bytes(http.get("/openapi.json").content)
    key = [] if held == NO_KEY else ["--header", f"X-API-Key: {secret}"]
    thorough = held == Scope.ADMIN or EXAMPLES > LONG  # others are refused by most routes
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", str(file), "--url", own.url, *key),
            *("--max-examples", str(EXAMPLES), "--workers", "1", "--no-color"),
            *("--phases", "examples,coverage,fuzzing" if thorough else "examples"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        timeout=300 + 60 * EXAMPLES,
    )
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
    with own.http() as http:
        assert http.get("/health").json()["status"] == "healthy"
