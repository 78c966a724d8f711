"""Scanners that others wrote, against a real server with TLS (`make attack`): sslyze on both ports, the others on the API.

Each has an environment of its own (`tests/foreign`), asks loopback alone, and is ended after its time; ATTACK_S is that of one
kind of attack of wapiti's. First each must find something in a server that is weak on purpose. What it then says of ours is a
failure, unless `EXPLAINED` has the reason why it is none.
"""

import json
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from onnx import TensorProto

from fixtures.artifacts import onnx_identity
from fixtures.attacks.weak import careless_pages, old_tls
from fixtures.described import document
from fixtures.foreign import foreign
from fixtures.installation import Installation, eventually, free_port
from modelkeep.infra.certificates import Authority

ATTACK_S = int(os.environ.get("ATTACK_S", "60"))
MODULES = (
    "sql",
    "timesql",
    "xss",
    "exec",
    "file",
    "crlf",
    "ldap",
    "redirect",
    "shellshock",
    "http_headers",
    "cookieflags",
    "csp",
)
EXPLAINED = {
    "tls_curves: X448, secp521r1 are supported": "stronger than what is recommended; Python's ssl offers one curve, or all",
    "Clickjacking Protection: X-Frame-Options is not set": "obsolete: each answer says `frame-ancestors 'none'`",
}
HIDDEN_BY_SCANNING = ("/api/v1/auth/logout", "/api/v1/auth/logout-all", "/api/v1/safety/code-formats", "/api/v1/safety/sandbox")

pytestmark = pytest.mark.timeout(600 + 2 * len(MODULES) * ATTACK_S)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("attack")
    Authority(folder, datetime.now(UTC)).sign_server(["127.0.0.1", "localhost"], days=30, force=True)
    environment = {
        "MODELKEEP_SERVER__TLS_CERTIFICATE": str(folder / "server.pem"),
        "MODELKEEP_SERVER__TLS_KEY": str(folder / "server.key"),
        "MODELKEEP_SERVER__GRPC_PORT": str(free_port()),
    }
    installation = Installation(folder / "data", **environment)
    installation.authority = str(folder / "ca.pem")
    try:
        installation.start().wait(90).set_up()
        file = folder / "echo.onnx"
        file.write_bytes(onnx_identity(TensorProto.FLOAT))
        with installation.client() as client:
            client.push(file, "default")  # as wapiti calls whatever it has to name
            client.predict("default", [[1.0, 2.0]])
        yield installation
    finally:
        installation.stop()


def run(name: str, *arguments: str, folder: Path, timeout_s: float) -> str:
    """What a scanner prints; some end with 1 when they have found something."""
    command = [str(foreign(name).folder / "bin" / name), *arguments]
    clean = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=folder, env=clean, timeout=timeout_s
    )
    assert done.returncode in {0, 1}, f"{name} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def told(tool: str, asked: str, how_often: str, findings: list[str]) -> list[str]:
    """Tell what a scanner did and found; returns what nobody has explained."""
    print(f"\n{tool}, {asked}: {how_often}, {len(findings)} findings")
    for one in findings:
        print(f"  {one}" + (f" ({EXPLAINED[one]})" if one in EXPLAINED else ""))
    return [one for one in findings if one not in EXPLAINED]


class Answers:
    """What a server has answered since: how often in all, and which of it were faults of its own."""

    def __init__(self, house: Installation) -> None:
        self._house = house
        self._before = self._now()

    def _now(self) -> Counter[tuple[str, str]]:
        with self._house.http() as http:
            page = http.get("/metrics").text
        counted: Counter[tuple[str, str]] = Counter()
        for route, code, number in re.findall(
            r'^modelkeep_http_requests_total\{route="(\w+)",method="\w+",code="(\d+)"\} (\d+)', page, re.MULTILINE
        ):
            counted[route, code] += int(number)
        return counted

    @property
    def number(self) -> int:
        return (self._now() - self._before).total()

    @property
    def faults(self) -> list[str]:
        """Answers that are no one's wish; 503 is what a door says that has no room."""
        return [f"{route} answered {code}" for route, code in self._now() - self._before if code[0] == "5" and code != "503"]


# ---- sslyze


def sslyze(port: int, folder: Path, authority: str) -> tuple[str, list[str]]:
    """What it tried, and what Mozilla's recommendations (`intermediate`) or known attacks say against a port."""
    report = folder / "sslyze.json"
    target = ("--certinfo_ca_file", authority, "--json_out", str(report), f"127.0.0.1:{port}")
    said = run("sslyze", *target, folder=folder, timeout_s=300)
    (result,) = json.loads(report.read_text())["server_scan_results"]
    assert result["scan_status"] == "COMPLETED", said[-3000:]
    scans = result["scan_result"]
    unfinished = [name for name, scan in scans.items() if scan and scan["status"] == "ERROR"]
    tried = sum(
        len(scan["result"]["accepted_cipher_suites"]) + len(scan["result"]["rejected_cipher_suites"])
        for name, scan in scans.items()
        if name.endswith("_cipher_suites") and scan["status"] == "COMPLETED"
    )
    findings = [f"{name}: not looked at" for name in unfinished]
    for line in re.findall(r"^        \* (.+)", said[said.index("COMPLIANCE AGAINST") :], re.MULTILINE):
        kind, _colon, about = line.partition(": ")
        names = sorted(re.findall(r"'([^']+)'", about))
        findings.append(f"{kind}: {', '.join(names)} are supported" if "are supported" in about and names else line)
    assert "FAILED" in said or "OK - Compliant" in said, said[-3000:]
    return f"{tried} ciphers tried, {len(scans)} scans", findings


def test_sslyze_finds_old_tls_and_a_certificate_that_has_ended(tmp_path: Path) -> None:
    with old_tls(tmp_path / "weak") as port:
        asked, findings = sslyze(port, tmp_path, str(tmp_path / "weak" / "ca.pem"))
    told("sslyze", "a weak server", asked, findings)
    assert any("TLSv1" in one and one.startswith("tls_versions") for one in findings)
    assert {"ciphers", "certificate_path_validation"} <= {one.partition(":")[0] for one in findings}


@pytest.mark.parametrize("door", ["REST", "gRPC"])
def test_sslyze_finds_nothing_wrong_with_either_port(house: Installation, tmp_path: Path, door: str) -> None:
    asked, findings = sslyze(house.port if door == "REST" else house.grpc_port, tmp_path, str(house.authority))
    assert told("sslyze", f"the port of {door}", asked, findings) == []
    assert int(asked.split()[0]) > 100


# ---- wapiti


def wapiti(url: str, folder: Path, *options: str, modules: tuple[str, ...] = MODULES) -> list[str]:
    """What it finds from an address on."""
    report = folder / "wapiti.json"
    said = run(
        *("wapiti", "--url", url, "--scope", "domain", "--module", ",".join(modules), "--verify-ssl", "0"),
        *("--max-scan-time", str(ATTACK_S), "--max-attack-time", str(ATTACK_S), "--max-links-per-page", "200"),
        *("--endpoint", "http://127.0.0.1:9/", "--dns-endpoint", "localhost", "--no-bugreport"),  # its own is elsewhere
        *("--store-session", str(folder / "session"), "--store-config", str(folder / "config")),
        *("--format", "json", "--output", str(report), *options),
        folder=folder,
        timeout_s=300 + 2 * len(modules) * ATTACK_S,
    )
    assert "Traceback" not in said, said[said.index("Traceback") :][-3000:]
    found: dict[str, Any] = json.loads(report.read_text())
    kinds = [*found["vulnerabilities"].items(), *found["anomalies"].items()]
    return sorted({f"{kind}: {one['info']}" for kind, some in kinds for one in some})


def reduced(path: Path, module: str = "") -> Path:
    """Our document, as far as wapiti can send it (JSON), without what would take the door away that it scans.

    Its module `exec` ends with an exception (3.2.3) at parameters of a query beside a JSON body: for it they are left out.
    """
    whole = json.loads(json.dumps(document()))
    for address, item in list(whole["paths"].items()):
        for method, operation in list(item.items()):
            body = operation.get("requestBody", {}).get("content", {})
            if address in HIDDEN_BY_SCANNING or (body and "application/json" not in body):
                del item[method]
            elif body:
                operation["requestBody"]["content"] = {"application/json": body["application/json"]}
                if module == "exec":
                    beside = operation.get("parameters", [])
                    operation["parameters"] = [one for one in beside if one.get("in") != "query"]
    path.write_text(json.dumps(whole))
    return path


def test_wapiti_finds_injections_in_careless_pages(tmp_path: Path) -> None:
    with careless_pages() as url:
        findings = wapiti(f"{url}/", tmp_path, modules=("sql", "xss", "csp"))
    told("wapiti", "a weak server", "pages with two links", findings)
    assert any(one.startswith("SQL Injection") for one in findings)
    assert any(one.startswith("Reflected Cross Site Scripting") for one in findings)


@pytest.mark.parametrize("who", ["a stranger", "an administrator"])
def test_wapiti_finds_nothing_in_pages_and_api(house: Installation, tmp_path: Path, who: str) -> None:
    key = ["--header", f"X-API-Key: {house.key}"] if who == "an administrator" else []
    answers = Answers(house)
    starts = [part for page in ("/docs", "/redoc") for part in ("--start", house.url + page)]
    findings = []
    for modules in (("exec",), tuple(one for one in MODULES if one != "exec")):
        described = reduced(tmp_path / "openapi.json", modules[0])
        findings += wapiti(f"{house.url}/", tmp_path, *starts, "--swagger", str(described), *key, modules=modules)
    number = answers.number
    assert told("wapiti", f"pages and API as {who}", f"{number} requests", findings + answers.faults) == []
    assert number > 500


# ---- sqlmap


def sqlmap(url: str, requests: list[tuple[str, str, Any]], key: str = "") -> tuple[int, list[str]]:
    """How many parameters it tried in requests (method, path, document), and where it could inject."""
    line, host, parts = "=" * 54, httpx.URL(url).netloc.decode(), []
    for method, path, body in requests:
        start = [line, f"12:00:00  {url}  [127.0.0.1]", line, f"{method} {path} HTTP/1.1", f"Host: {host}"]
        start += [] if body is None else ["Content-Type: application/json"]
        start += [f"X-API-Key: {key}"] if key else []
        parts += [*start, "", "" if body is None else json.dumps(body), line, ""]
    with tempfile.TemporaryDirectory() as place:  # gone with the key that is in it
        log, results = Path(place) / "requests.log", Path(place) / "results.csv"
        log.write_text("\n".join(parts))
        said = run(
            *("sqlmap", "-l", str(log), "--batch", "--flush-session", "--disable-coloring", "--level", "2", "--risk", "2"),
            *("--dbms", "SQLite", "--time-sec", "2", "--timeout", "20", "--retries", "0"),
            *(["--force-ssl"] if url.startswith("https") else []),
            *("--output-dir", str(Path(place) / "output"), "--results-file", str(results)),
            folder=Path(place),
            timeout_s=60 + 60 * len(requests),
        )
        found = results.read_text().splitlines()[1:] if results.exists() else []
    tried = len(re.findall(r"testing for SQL injection on", said))
    assert tried >= len(requests), said[-3000:]
    assert "unable to connect" not in said, said[-3000:]
    return tried, [one.replace(url, "") for one in found if one]


def test_sqlmap_finds_an_injection_in_careless_pages() -> None:
    with careless_pages() as url:
        tried, findings = sqlmap(url, [("GET", "/items?id=1", None)])
    told("sqlmap", "a weak server", f"{tried} parameters", findings)
    assert any("/items" in one for one in findings)


def listed(house: Installation) -> list[tuple[str, str, Any]]:
    """Requests that all are good, with everything that is looked up by them; `*` is put behind the ids in paths."""
    with house.http() as http:
        eventually(lambda: http.get("/api/v1/predictions").json()["items"], "the prediction in the history")
        prediction = http.get("/api/v1/predictions").json()["items"][0]
        entries = http.get("/api/v1/audit?limit=1").json()
        mine = http.get("/api/v1/me").json()
        model = http.get("/api/v1/models/default").json()
    me, entry = mine["user"]["id"], entries["items"][0]
    searched = f"id={prediction['id']}&request_id={prediction['request_id']}&deployment=default&version=1"
    searched += f"&key={mine['key']['id']}&outcome=ok&since=2026-01-01T00:00:00&until=2099-01-01T00:00:00"
    about = (
        f"actor={entry['actor']}&action={entry['action']}&target={model['id']}&request_id={entry['request_id']}&outcome=done"
    )
    about += "&since=2026-01-01T00:00:00&until=2099-01-01T00:00:00"
    place = f"subject_kind=user&subject={me}&kind=model&on=default"
    asked = [
        *(f"/api/v1/audit?limit=5&cursor={entries['next_cursor']}&{about}", f"/api/v1/audit/export?format=jsonl&{about}"),
        *(f"/api/v1/predictions?limit=5&{searched}", f"/api/v1/predictions/export?format=jsonl&{searched}"),
        *(f"/api/v1/grants?limit=5&{place}", f"/api/v1/authz/explain?scope=models:read&{place}"),
        *("/api/v1/models?limit=5&archived=true", "/info?model=default&version=1", "/v2/models/default*"),
        *(f"/api/v1/users/{me}*", f"/api/v1/predictions/{prediction['id']}*", "/api/v1/deployments/default*"),
        *("/api/v1/models/default*", "/api/v1/models/default*/versions", "/api/v1/models/default/versions/1*"),
        *("/api/v1/models/default*/aliases", "/api/v1/models/default/versions/1*/events"),
    ]
    written = [
        ("/api/v1/audit/erasures", {"subject": "usr_01J9Z3K6T2Q8W4V5R7X0Y1B2C3", "reason": "a try"}),
        ("/api/v1/groups", {"name": "people"}),
        ("/api/v1/auth/login", {"login": "ada", "password": "no"}),
        ("/api/v1/predict/default", {"inputs": [[1.0, 2.0]]}),
    ]
    with house.http() as http:
        for path in asked:
            answer = http.get(path.replace("*", ""))
            assert answer.status_code == 200, f"{path}: {answer.text}"
    return [*(("GET", path, None) for path in asked), *(("POST", path, body) for path, body in written)]


def test_sqlmap_finds_nothing_in_ids_filters_searches_and_cursors(house: Installation) -> None:
    requests = listed(house)
    answers = Answers(house)
    tried, findings = sqlmap(house.url, requests, house.key)
    number = answers.number
    said = f"{tried} parameters of {len(requests)} routes, {number} requests"
    assert told("sqlmap", "ids, filters, searches and cursors as an administrator", said, findings + answers.faults) == []
    assert number > 20 * tried
