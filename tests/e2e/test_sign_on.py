"""Signing on through a real OpenID provider, by the real command and by a service, on a real server."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest

from fixtures.artifacts import onnx_identity
from fixtures.installation import Installation, installed
from fixtures.openid import CLIENT, SECRET, OpenId

COMMAND = (sys.executable, "-m", "modelkeep.app.cli")
AUDIENCE = "urn:modelkeep:predictions"
CALLBACK = "/api/v1/auth/oidc/corp/callback"


@pytest.fixture(scope="module")
def own(openid: OpenId, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("sign-on")
    (folder / "secret").write_text(SECRET)
    corp = {
        "name": "corp",
        "issuer": openid.issuer,
        "client_id": CLIENT,
        "client_secret_file": str(folder / "secret"),
        "redirect_uri": openid.redirect_uri,
        "people": "all",
        "service_audience": AUDIENCE,
        "services": {"robot": "pipeline"},
    }
    with installed(folder / "data", MODELKEEP_AUTH__OIDC=json.dumps([corp])) as house:
        yield house


def walked(house: Installation, openid: OpenId, address: str, login: str) -> httpx.Response:
    """Open an address in a browser, log in at the provider, and come back: what is shown at the end."""
    with httpx.Client(base_url=house.url, trust_env=False) as browser:
        began = browser.get(address)
        assert began.status_code == 303, began.text
        return browser.get(CALLBACK, params=openid.came_back(began.headers["location"], login))


def command(house: Installation, home: Path, *arguments: str, piped: bool = False) -> subprocess.Popen[str]:
    environment = {"PATH": "/nonexistent", "MODELKEEP_URL": house.url, "XDG_CONFIG_HOME": str(home), "BROWSER": "/bin/true"}
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def shown(process: subprocess.Popen[str]) -> str:
    """The address that a command has somebody open."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http\S+/auth/terminal/oidc/\S+", line):
            return found[0]
    raise AssertionError("no address")


def whoami(house: Installation, home: Path) -> dict[str, object]:
    out, err = (process := command(house, home, "whoami", "--json")).communicate(timeout=60)
    assert process.returncode == 0, err
    user: dict[str, object] = json.loads(out)["user"]
    return user


def test_somebody_logs_in_at_a_terminal_with_a_browser_on_the_same_machine(own: Installation, openid: OpenId, tmp_path: Path):
    process = command(own, tmp_path, "login", "--provider", "corp")
    page = walked(own, openid, shown(process), "ada")
    link = re.search(r'href="(http://127\.0\.0\.1:\d+/\?[^"]+)"', page.text)
    assert link, page.text
    there = httpx.get(link[1].replace("&amp;", "&"), trust_env=False)
    assert (there.status_code, "terminal" in there.text) == (200, True)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, f"You are ada.l at {own.url}.\n"), err
    assert whoami(own, tmp_path)["email"] == "ada@corp.test"


def test_somebody_logs_in_at_a_terminal_with_a_browser_elsewhere(own: Installation, openid: OpenId, tmp_path: Path):
    process = command(own, tmp_path, "login", "--provider", "corp", "--no-browser", "--password-stdin", piped=True)
    page = walked(own, openid, shown(process), "bob")
    code = re.search(r"mkl_\w{46}", page.text)
    assert code, page.text
    assert "http://127.0.0.1" not in page.text, "nothing is gone on to"
    with httpx.Client(base_url=own.url, trust_env=False) as thief:
        stolen = {"code": code[0], "verifier": "x" * 43}
        assert thief.post("/api/v1/auth/terminal/tokens", json=stolen).json()["code"] == "sign_on_code_refused"
    _out, err = process.communicate(f"{code[0]}\n", timeout=60)
    assert process.returncode == 0, err
    assert whoami(own, tmp_path)["email"] == "bob@corp.test"


def test_whom_the_provider_lets_in_and_we_do_not_ends_the_command(own: Installation, openid: OpenId, tmp_path: Path):
    process = command(own, tmp_path, "login", "--provider", "corp")
    back = walked(own, openid, shown(process), "eve")
    assert back.status_code == 303
    assert httpx.get(back.headers["location"], trust_env=False).status_code == 200
    _out, err = process.communicate(timeout=60)
    assert (process.returncode, "not_admitted" in err) == (5, True)
    assert not list(tmp_path.glob("modelkeep/logins/*.json"))


def test_a_service_with_its_providers_token_unloads_and_loads_a_model(own: Installation, openid: OpenId, tmp_path: Path):
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx_identity(onnx.helper.np_dtype_to_tensor_dtype(np.dtype("float32"))))
    with httpx.Client(base_url=own.url, trust_env=False, timeout=60) as asking:
        as_admin = {"x-api-key": own.key}
        new = {"name": "pipeline", "kind": "service", "role": "developer"}
        assert asking.post("/api/v1/users", json=new, headers=as_admin).status_code == 201
        with own.client() as client:
            client.push(file, name="robots")
        theirs = {"authorization": f"Bearer {openid.access_token(AUDIENCE)}"}
        for what in ("unload", "load"):
            assert asking.post(f"/v2/repository/models/robots/{what}").status_code == 401, "the control"
            for wrong in (openid.access_token("urn:modelkeep:elsewhere"), openid.access_token(AUDIENCE, "stranger")):
                refused = asking.post(f"/v2/repository/models/robots/{what}", headers={"authorization": f"Bearer {wrong}"})
                assert (refused.status_code, refused.json().keys()) == (401, {"error"})
            done = asking.post(f"/v2/repository/models/robots/{what}", headers=theirs)
            assert (done.status_code, done.json()) == (200, {}), done.text
        assert asking.get("/v2/models/robots", headers=theirs).status_code == 401, "predictions take keys"
