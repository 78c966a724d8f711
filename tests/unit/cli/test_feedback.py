"""Commands and client of feedback, against a stand-in that answers what the API's examples show."""

import asyncio
import json
import socket
import threading

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from modelkeep.api.feedback_examples import FEEDBACK
from modelkeep.app.cli import program
from modelkeep.client import Client

(LISTED,) = FEEDBACK["FeedbackPage"]
(ALL,) = FEEDBACK["PredictionFeedback"]
ID = ALL["prediction"]
UNKNOWN = ID[:-1] + "9"


class Asked:
    """What was asked of the stand-in."""

    def __init__(self):
        self.url = ""
        self.asked = []

    async def answer(self, request):
        body = json.loads(await request.body() or b"null")
        path = request.url.path.removeprefix("/api/v1")
        self.asked.append((request.method, path, dict(request.query_params), body))
        if request.method == "POST":
            outcomes = [{"prediction": ID, "status": "accepted", "reason": ""} for _ in body["items"]]
            return JSONResponse({"accepted": len(outcomes), "unchanged": 0, "parked": 0, "refused": 0, "items": outcomes})
        if UNKNOWN in path:
            problem = {"type": "about:blank", "title": "t", "status": 404, "code": "prediction_not_found", "detail": "None."}
            return JSONResponse(problem, 404, media_type="application/problem+json")
        return JSONResponse(LISTED if path == "/feedback" else ALL)


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
        code = program.run(["feedback", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_what_was_told_is_listed_by_what_is_asked_for(run, house):
    code, out, _err = run("list", "--deployment", "churn", "--version", 3, "--verdict", "wrong")
    assert (code, out.splitlines()[1].split("\t")[:5]) == (0, [ID, "churn", "3", "wrong", '{"label": "leaves"}'])
    assert house.asked[0][2].items() >= {"deployment": "churn", "version": "3", "verdict": "wrong"}.items()


@pytest.mark.parametrize("wrong", [("list", "--verdict", "perhaps"), ("send", ID, "perhaps"), ("list", "--version", "3")])
def test_what_cannot_be_is_said_before_asking(run, house, wrong):
    code, _out, err = run(*wrong)
    assert (code, house.asked) == (2, [])
    assert "right or wrong" in err or "--deployment" in err


def test_all_that_was_told_of_a_prediction_is_shown(run, house):
    code, out, _err = run("show", ID)
    assert code == 0
    assert out.splitlines()[0].split("\t") == ["verdict", "truth", "at", "told", "by", "note"]
    assert out.splitlines()[1].startswith('wrong\t{"label": "leaves"}\t')
    assert out.splitlines()[1].endswith("\tweb shop\tCancelled in March.")
    assert house.asked[0][1] == f"/predictions/{ID}/feedback"
    code, _out, err = run("show", UNKNOWN)
    assert code != 0
    assert "`modelkeep predictions`" in err


def test_who_interrupts_is_not_told_that_nothing_was_changed(run, monkeypatch):
    def interrupted(*_said, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "feedback", interrupted)
    _code, _out, err = run("send", ID, "wrong")
    assert "It may be told already" in err
    assert "Nothing was changed" not in err


def test_an_empty_text_may_be_what_is_true(house):
    with Client(house.url, "mk_any") as client:
        client.feedback(ID, "wrong", truth="", note="", at="")
        client.feedback(ID, "wrong")
    sent = [body["items"] for _method, _path, _query, body in house.asked]
    assert sent == [[{"prediction": ID, "verdict": "wrong", "truth": ""}], [{"prediction": ID, "verdict": "wrong"}]]
