"""Commands and client of rollouts, against a stand-in that answers what the API's examples show."""

import asyncio
import json
import socket
import threading
import xml.etree.ElementTree as ET

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from modelkeep.api.rollout_examples import ROLLOUTS
from modelkeep.app.cli import program
from modelkeep.app.cli.rollout_plot import svg
from modelkeep.client import AsyncClient, Client, Rollout
from modelkeep.stats.evidence import CERTAIN

ID = "rol_01J9Z3K6T2Q8W4V5R7X0Y1B2C3"
(OVER,) = ROLLOUTS["Rollout"]
(EVIDENCE,) = ROLLOUTS["Evidence"]
RUNNING = {**OVER, "state": "running", "reason": "", "ended_at": None}


class Rolling:
    """What was asked of the stand-in, and what it answers next for the rollout."""

    def __init__(self):
        self.url = ""
        self.asked = []
        self.next = [RUNNING]

    async def answer(self, request):
        body = json.loads(await request.body() or b"null")
        self.asked.append((request.method, request.url.path.removeprefix("/api/v1"), body, request.headers.get("if-match")))
        if request.url.path.endswith("/evidence"):
            return JSONResponse(EVIDENCE)
        if request.method == "GET" and request.url.path.endswith("/rollouts"):
            return JSONResponse({"items": [{**RUNNING, "id": ID}], "next_cursor": None})
        return JSONResponse(self.next.pop(0) if len(self.next) > 1 else self.next[0])


@pytest.fixture(scope="module")
def served():
    rolling = Rolling()
    app = Starlette(routes=[Route("/{path:path}", rolling.answer, methods=["GET", "POST"])])
    with socket.create_server(("127.0.0.1", 0)) as sock:
        rolling.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, loop="asyncio", http="h11", lifespan="off", log_config=None))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])), daemon=True)
        thread.start()
        yield rolling
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def rolling(served):
    served.asked, served.next = [], [RUNNING]
    return served


@pytest.fixture
def run(rolling, monkeypatch, capsys):
    monkeypatch.setenv("MODELKEEP_URL", rolling.url)
    monkeypatch.setenv("MODELKEEP_API_KEY", "mk_any")

    def run(*arguments):
        capsys.readouterr()
        code = program.run(["rollout", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_rollout_is_started_with_what_was_said_and_defaults_for_the_rest(run, rolling):
    code, out, _err = run("start", "churn", 3, "--step", "5:10m", "--step", "50:1h", "--bound", "errors=0.01", "--revision", 4)
    assert code == 0
    assert out == f"churn version 3 after version 2: running, step 1 of 1 (10 %). `modelkeep rollout watch {ID}` follows it.\n"
    ((method, path, body, seen),) = rolling.asked
    assert (method, path, seen) == ("POST", "/rollouts", '"4"')
    assert body["steps"] == ["5:10m", "50:1h"]
    assert (body["deployment"], body["version"], body["mode"], body["bounds"]) == ("churn", 3, "canary", {"errors": 0.01})
    assert "signals" not in body, "the server's default is left to it"


@pytest.mark.parametrize(
    ("wrong", "words"), [(("--mode", "purple"), "no mode purple"), (("--bound", "errors"), "says no rate")]
)
def test_what_cannot_be_asked_is_said_before_asking(run, rolling, wrong, words):
    code, _out, err = run("start", "churn", 3, *wrong)
    assert code == 2
    assert words in err
    assert rolling.asked == []


@pytest.mark.parametrize("act", ["pause", "resume", "advance", "promote", "rollback"])
def test_it_is_steered_by_the_same_word(run, rolling, act):
    code, out, _err = run(act, ID, "--revision", 2, "--json")
    assert (code, json.loads(out)["id"]) == (0, ID)
    ((method, path, body, seen),) = rolling.asked
    assert (method, path, seen) == ("POST", f"/rollouts/{ID}/{act}", '"2"')
    assert body == ({"reason": ""} if act == "rollback" else None)


def test_it_is_listed_and_shown_with_its_numbers_and_its_story(run):
    assert run("list", "--deployment", "churn")[1].splitlines()[1].split("\t")[:5] == [ID, "churn", "3", "running", "1 (10 %)"]
    out = run("show", ID)[1]
    assert "errors\t9\t254\t21\t2286\t446\t299" in out
    assert "rolled back\t1\tmodelkeep" in out


def test_watching_tells_what_changes_and_ends_with_it(run, rolling, monkeypatch):
    monkeypatch.setattr("modelkeep.client.rollouts._LOOK_EVERY_S", 0.0)
    rolling.next = [RUNNING, RUNNING, {**RUNNING, "step": 2}, OVER]
    code, out, err = run("watch", ID)
    assert code == 4, "it was taken back"
    assert [line.split(";")[0] for line in err.splitlines()] == ["running, step 1 (10 %)", "running, step 2 (10 %)"]
    assert "errors 9/254 to 21/2286, e 446" in err
    assert "rolled back. errors: 9 of 254" in out
    rolling.next = [{**OVER, "state": "promoted"}]
    assert run("watch", ID)[0] == 0


def test_its_evidence_is_drawn_in_a_file_that_needs_nothing_else(run, tmp_path):
    code, out, _err = run("plot", ID, "-o", tmp_path / "r.svg")
    assert (code, out) == (0, f"{tmp_path}/r.svg shows 1 moments of {ID}.\n")
    text = (tmp_path / "r.svg").read_text()
    assert "href" not in text
    assert "url(" not in text
    assert "shown not worse" in text


def test_lines_of_a_drawing_lie_within_it_and_begin_each_step():
    signal = EVIDENCE["points"][0]["signals"]["errors"]
    points = [
        {"at": f"2026-03-14T09:{minute:02}:00Z", "step": 1 + minute // 30, "signals": {"errors": {**signal, "log_e": log}}}
        for minute, log in ((0, 0.0), (10, -40.0), (30, 3.0), (59, 900.0))
    ]
    root = ET.fromstring(svg("churn & <3>", {**EVIDENCE, "points": points}))
    name = "{http://www.w3.org/2000/svg}"
    _left, _top, width, height = (float(one) for one in root.attrib["viewBox"].split())
    for line in root.iter(f"{name}polyline"):
        places = [tuple(map(float, one.split(","))) for one in line.attrib["points"].split()]
        assert len(places) == 4
        assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
        assert [x for x, _y in places] == sorted(x for x, _y in places)
    assert [one.text for one in root.iter(f"{name}text") if (one.text or "").startswith("step")] == ["step 2"]
    assert "Nothing has been counted yet." in svg("t", {**EVIDENCE, "points": []})


async def test_both_clients_have_the_same_words(rolling):
    with Client(rolling.url, "mk_any") as client:
        assert client.rollouts(deployment="churn")[0].id == ID
        found = client.start_rollout("churn", 3, steps=["5:10m"])
        assert (type(found), found.over, found.version) == (Rollout, False, 3)
        assert client.rollout_evidence(ID)["points"] == EVIDENCE["points"]
    async with AsyncClient(rolling.url, "mk_any") as client:
        assert (await client.roll_back_rollout(ID, reason="it smells")).id == ID
    assert rolling.asked[-1][2] == {"reason": "it smells"}


DIFFERING = {
    **RUNNING["numbers"]["errors"],
    "requests": 103,
    "bad": 51,
    "others": 103,
    "others_bad": 0,
    "bound": 0.1,
    "log_e": 4.6,
    "needs_local": None,
}
SHADOWED = {**RUNNING, "shadow": True, "percent": 20.0, "numbers": {"disagreement": DIFFERING}}


def test_one_that_begins_in_the_shadow_says_so_and_what_it_answers_otherwise(run, rolling):
    rolling.next = [SHADOWED]
    out = run("start", "churn", 3, "--shadow", "20:10m", "--bound", "disagreement=0.1")[1]
    assert "running, step 1 of 1 (20 %, in the shadow)." in out
    ((_method, _path, body, _seen),) = rolling.asked
    assert (body["shadow"], body["bounds"]) == ("20:10m", {"disagreement": 0.1})
    assert "disagreement\t51\t103\tat most\t10.0%\t99.5\t299" in run("show", ID)[1]


def test_watching_tells_how_much_may_be_answered_otherwise(run, rolling, monkeypatch):
    monkeypatch.setattr("modelkeep.client.rollouts._LOOK_EVERY_S", 0.0)
    rolling.next = [SHADOWED, OVER]
    err = run("watch", ID)[2]
    assert "running, step 1 (20 %, in the shadow); disagreement 51/103 at most 10.0%, e 99.5" in err


def test_what_is_counted_in_the_shadow_has_a_panel_with_words_of_its_own():
    point = {**EVIDENCE["points"][0], "signals": {"disagreement": EVIDENCE["points"][0]["signals"]["errors"]}}
    assert "9 of 254 in the shadow answered otherwise or not at all" in svg("t", {**EVIDENCE, "points": [point]})


def test_what_is_certain_is_drawn_as_well():
    certain = {**EVIDENCE["points"][0]["signals"]["errors"], "log_not_worse": CERTAIN}
    root = ET.fromstring(svg("t", {**EVIDENCE, "points": [{**EVIDENCE["points"][0], "signals": {"disagreement": certain}}]}))
    assert all(len(one.text or "") < 40 for one in root.iter("{http://www.w3.org/2000/svg}text"))
