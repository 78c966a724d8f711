"""Commands and client of alerts, against a stand-in that answers what the API's examples show."""

import asyncio
import json
import socket
import threading

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from modelkeep.api.alert_examples import ALERTS
from modelkeep.app.cli import program
from modelkeep.client import Alert, AsyncClient, Client

(SHOWN,) = ALERTS["Alert"]
(LISTED,) = ALERTS["AlertFactsPage"]
ID = SHOWN["id"]
OVER = {**SHOWN, "state": "resolved", "resolved_by": "ada", "resolved_at": SHOWN["last_at"], "resolved_why": "clean rows"}


class Asked:
    """What was asked of the stand-in."""

    def __init__(self):
        self.url = ""
        self.asked = []

    async def answer(self, request):
        body = json.loads(await request.body() or b"null")
        path = request.url.path.removeprefix("/api/v1")
        self.asked.append((request.method, path, dict(request.query_params), body))
        if path == "/alerts":
            return JSONResponse(LISTED)
        if path == "/alerts/alr_none":
            problem = {
                "type": "about:blank",
                "title": "t",
                "status": 404,
                "code": "alert_not_found",
                "detail": "There is none.",
            }
            return JSONResponse(problem, 404, media_type="application/problem+json")
        return JSONResponse(OVER if path.endswith("/resolve") else SHOWN)


@pytest.fixture(scope="module")
def served():
    asked = Asked()
    app = Starlette(routes=[Route("/{path:path}", asked.answer, methods=["GET", "POST"])])
    with socket.create_server(("127.0.0.1", 0)) as sock:
        asked.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, loop="asyncio", http="h11", lifespan="off", log_config=None))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])), daemon=True)
        thread.start()
        yield asked
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def house(served):
    served.asked = []
    return served


@pytest.fixture
def run(house, monkeypatch, capsys):
    monkeypatch.setenv("MODELKEEP_URL", house.url)
    monkeypatch.setenv("MODELKEEP_API_KEY", "mk_any")

    def run(*arguments):
        capsys.readouterr()
        code = program.run(["alerts", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_they_are_listed_by_what_is_asked_for(run, house):
    code, out, _err = run("list", "--state", "firing", "--severity", "page", "--deployment", "churn", "--model", "churn")
    assert (code, out.splitlines()[1].split("\t")[:5]) == (0, [ID, "page", "acknowledged", SHOWN["title"], "1"])
    ((_method, path, query, _body),) = house.asked
    assert path == "/alerts"
    assert query.items() >= {"state": "firing", "severity": "page", "deployment": "churn", "model": "churn"}.items()
    assert json.loads(run("list", "--json")[1]) == LISTED["items"]
    assert not house.asked[-1][2].keys() & {"state", "severity", "deployment", "model"}


@pytest.mark.parametrize("wrong", [("--state", "purple"), ("--severity", "loud")])
def test_a_word_that_there_is_not_is_said_before_asking(run, house, wrong):
    code, _out, err = run("list", *wrong)
    assert (code, house.asked) == (2, [])
    assert f"There is no {wrong[0].strip('-')} {wrong[1]}" in err


def test_one_is_shown_with_who_looks_at_it_and_what_was_seen(run):
    code, out, _err = run("show", ID)
    assert code == 0
    assert SHOWN["text"] in out
    assert "ada, until " in out
    assert "\terrors\t9\t254\t21\t2286" in out


def test_one_that_there_is_not_says_where_to_look(run):
    code, _out, err = run("show", "alr_none")
    assert code != 0
    assert "modelkeep alerts list" in err


def test_one_is_acknowledged_for_so_long_and_resolved_for_a_reason(run, house):
    assert run("acknowledge", ID, "--for", 60, "--note", "logs")[1].endswith(f": {SHOWN['title']}\n")
    assert run("acknowledge", ID)[0] == 0
    assert run("resolve", ID, "--note", "clean rows")[1] == f"Resolved: {SHOWN['title']}\n"
    assert [(path, body) for _method, path, _query, body in house.asked] == [
        (f"/alerts/{ID}/acknowledge", {"note": "logs", "for_minutes": 60}),
        (f"/alerts/{ID}/acknowledge", {"note": ""}),
        (f"/alerts/{ID}/resolve", {"note": "clean rows"}),
    ]
    assert run("resolve", ID)[0] == 2, "nobody resolves without a word"


async def test_both_clients_have_the_same_words(house):
    with Client(house.url, "mk_any") as client:
        (listed,) = client.alerts(state="firing")
        assert (type(listed), listed.id, listed.evidence) == (Alert, ID, ())
        assert client.alert(ID).evidence[0]["signal"] == "errors"
        assert client.acknowledge_alert(ID, for_minutes=5).acknowledged_by == "ada"
    async with AsyncClient(house.url, "mk_any") as client:
        assert (await client.resolve_alert(ID, note="clean rows")).resolved_why == "clean rows"
