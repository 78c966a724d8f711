"""What is tried again, how long it is waited for, and what is never sent twice. The servers are real, the refusals scripted."""

import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.flaky import LOST, flaky_server, refusal
from modelkeep.client import AsyncClient, Client, Conflict, Limited, Overloaded, ServerUnreachable, Unavailable
from modelkeep.client.errors import seconds_in
from modelkeep.client.retries import LONGEST_PAUSE_S, may_repeat, pause_before

MADE = {"id": "key_1", "name": "k", "key": {"id": "key_1", "name": "k"}}
ANSWER = b"""HTTP/1.1 200 OK\r
Content-Type: application/json\r
Content-Length: 12\r
\r
{"name":"d"}"""


@pytest.fixture
def flaky():
    with flaky_server() as state:
        yield state


class Both:
    """One client or the other, to be called alike."""

    def __init__(self, url, *, awaited, **options):
        self._awaited, self._arguments = awaited, ((url, "mk_key"), options)

    async def __call__(self, method, *args, **kwargs):
        positional, options = self._arguments
        if not self._awaited:
            with Client(*positional, **options) as client:
                return getattr(client, method)(*args, **kwargs)
        async with AsyncClient(*positional, **options) as client:
            return await getattr(client, method)(*args, **kwargs)


@pytest.fixture(params=[False, True], ids=["blocking", "awaited"])
def ask(flaky, request):
    return Both(flaky.url, awaited=request.param)


@pytest.mark.parametrize("refused", [refusal(503), refusal(429, code="rate_limited"), LOST], ids=["503", "429", "lost"])
async def test_a_prediction_is_tried_again_until_it_is_answered(flaky, ask, refused):
    flaky.script = [refused] * 3
    answer = await ask("predict", "d", [[1]])
    assert answer.id == "prd_1"
    assert len(flaky.requests) == 4
    assert len(set(flaky.bodies)) == 1
    first, second, third = flaky.pauses
    assert first >= 0.1
    assert second >= 0.2
    assert third >= 0.4


async def test_pictures_go_out_again_whole(flaky, ask):
    flaky.script = [refusal(503), LOST]
    await ask("predict", "d", [b"\xff\xd8\xffone", b"\xff\xd8\xfftwo"])
    assert [body.count(b"\xff\xd8\xff") for body in flaky.bodies] == [2, 2, 2]
    assert len({len(body) for body in flaky.bodies}) == 1


async def test_after_the_last_try_the_refusal_is_raised(flaky, ask):
    flaky.script = [refusal(503)] * 9
    with pytest.raises(Overloaded) as caught:
        await ask("predict", "d", [[1]])
    assert caught.value.status == 503
    assert len(flaky.requests) == 4


async def test_no_retries_means_one_request(flaky):
    flaky.script = [refusal(503)] * 9
    for awaited in (False, True):
        with pytest.raises(Unavailable):
            await Both(flaky.url, awaited=awaited, retries=0)("predict", "d", [[1]])
    assert len(flaky.requests) == 2


async def test_the_server_says_when_to_come_back(flaky, ask):
    flaky.script = [refusal(503, retry_after="1")]
    await ask("predict", "d", [[1]])
    assert flaky.pauses[0] >= 1


async def test_who_is_to_come_back_after_the_timeout_is_told_at_once(flaky):
    flaky.script = [refusal(429, code="rate_limited", retry_after="60")]
    for awaited in (False, True):
        began = time.monotonic()
        with pytest.raises(Limited) as caught:
            await Both(flaky.url, awaited=awaited, timeout=50)("predict", "d", [[1]])
        assert caught.value.retry_after_s == 60
        assert time.monotonic() - began < 40
        flaky.script = [refusal(429, code="rate_limited", retry_after="60")]


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("create_key", ("k", ["predict"])),
        ("setup", ("mks_x",)),
        ("revoke_key", ("key_1",)),
        ("rotate_key", ("key_1",)),
        ("end_previous_secret", ("key_1",)),
        ("delete_alias", ("m", "canary")),
        ("describe", ("m", "words")),
        ("archive", ("m",)),
    ],
)
@pytest.mark.parametrize("refused", [refusal(503), refusal(429, code="rate_limited"), LOST], ids=["503", "429", "lost"])
async def test_a_write_is_sent_again_with_the_key_of_the_first_time(flaky, ask, method, arguments, refused):
    flaky.script, flaky.document = [refused] * 2, MADE
    await ask(method, *arguments)
    await ask(method, *arguments)
    first, second, third, other = (key for _method, _path, _when, key in flaky.requests)
    assert first == second == third != other
    assert len(first) == len(other) == 32


async def test_a_write_whose_first_sending_is_still_under_way_is_asked_for_again(flaky, ask):
    flaky.script, flaky.document = [refusal(409, code="idempotency_key_in_use")], MADE
    assert (await ask("create_key", "k", ["predict"])).id == "key_1"
    assert len({key for _method, _path, _when, key in flaky.requests}) == 1
    flaky.script = [refusal(409, code="idempotency_key_reused")]
    with pytest.raises(Conflict):
        await ask("create_key", "k", ["predict"])
    assert len(flaky.requests) == 3


async def test_what_changes_nothing_carries_no_key(flaky, ask):
    await ask("predict", "d", [[1]])
    flaky.document = {"name": "d", "model": "d"}
    await ask("deployment", "d")
    assert [key for _method, _path, _when, key in flaky.requests] == ["", ""]


@pytest.mark.parametrize("revision", [None, 3])
async def test_a_change_that_depends_on_a_revision_is_repeated_too(flaky, ask, revision):
    flaky.script, flaky.document = [LOST], {"name": "d", "model": "d", "version": 2}
    assert (await ask("promote", "d", 2, revision=revision)).version == 2
    assert len({key for _method, _path, _when, key in flaky.requests}) == 1
    assert len(flaky.requests) == 2


async def test_an_export_that_is_refused_is_asked_for_again_and_one_that_breaks_off_is_not(flaky, ask, tmp_path):
    flaky.script, flaky.document = [refusal(503)], [{"id": "prd_1"}]
    file = await ask("export_predictions", tmp_path / "all.jsonl")
    assert json.loads(file.read_text()) == [{"id": "prd_1"}]
    flaky.script = [LOST]
    with pytest.raises(ServerUnreachable):
        await ask("export_predictions", tmp_path / "more.jsonl")
    assert len(flaky.requests) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["all.jsonl"]


async def test_an_upload_that_is_refused_goes_out_again_under_its_key(flaky, ask, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(b"weights" * 30_000)
    flaky.document = {"model": "m", "number": 1, "state": "received"}
    flaky.script = [(204, {}, ""), refusal(503), refusal(503)]
    seen = []
    version = await ask("push", file, "m", wait=False, on_progress=lambda done, total: seen.append((done, total)))
    assert version.number == 1
    uploads = [(path, key) for _method, path, _when, key in flaky.requests if path.endswith("/versions?create=true")]
    assert len(uploads) == 3
    assert len({key for _path, key in uploads}) == 1
    assert uploads[0][1]
    assert all(body.count(b"weights") == 30_000 for body in flaky.bodies[1:])
    assert seen[-1] == (210_000, 210_000)


@pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "awaited"])
async def test_a_server_that_comes_back_is_found(awaited):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    came, over = threading.Event(), threading.Event()

    def later():
        time.sleep(0.3)
        with socket.create_server(("127.0.0.1", port)) as server:
            came.set()
            connection, _peer = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(ANSWER)
                over.wait(5)

    thread = threading.Thread(target=later)
    thread.start()
    found = await Both(f"http://127.0.0.1:{port}", awaited=awaited)("deployment", "d")
    over.set()
    thread.join()
    assert came.is_set()
    assert found.name == "d"


async def test_a_name_that_nobody_knows_is_not_asked_for_again():
    began = time.monotonic()
    with pytest.raises(ServerUnreachable, match="host name") as caught:
        await Both("http://no-such-host.invalid:8080", awaited=True)("models")
    assert not caught.value.passing
    assert not may_repeat(caught.value, harmless=True)
    assert time.monotonic() - began < 5


def test_a_date_to_come_back_at_is_read_as_seconds():
    now = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
    assert seconds_in(format_datetime(now + timedelta(seconds=90), usegmt=True), now) == 90
    assert seconds_in("Sunday, 22-Nov-26 10:01:00 GMT", now) == 60
    assert seconds_in("Sun Nov 22 10:00:30 2026", now) == 30
    assert seconds_in(format_datetime(now - timedelta(days=1), usegmt=True), now) == 0
    assert seconds_in("7") == 7


@given(st.text(max_size=60))
def test_no_text_to_come_back_at_breaks_the_reader(text):
    found = seconds_in(text)
    assert found is None or found >= 0


@given(st.integers(1, 200), st.none() | st.floats(0, 1e6))
def test_a_pause_is_what_was_asked_for_and_a_little_more(attempt, asked):
    pause = pause_before(attempt, asked)
    if asked is not None:
        assert asked <= pause <= asked * 1.25
    else:
        assert 0.1 <= pause <= LONGEST_PAUSE_S * 1.25


@pytest.mark.parametrize(("limit", "requests", "found"), [(0, 1, 0), (2, 1, 2), (5, 2, 5), (1000, 4, 10)])
async def test_a_list_is_read_as_far_as_was_asked_for(flaky, ask, limit, requests, found):
    pages = [{"items": [{"id": f"prd_{n}"} for n in range(at, at + 3)], "next_cursor": str(at + 3)} for at in (0, 3, 6)]
    flaky.script = [(200, {"content-type": "application/json"}, page) for page in pages]
    flaky.document = {"items": [{"id": "prd_9"}], "next_cursor": None}
    records = await ask("predictions", limit=limit, deployment="d")
    assert [one.id for one in records] == [f"prd_{n}" for n in range(found)]
    paths = [path for _method, path, *_ in flaky.requests]
    assert len(paths) == requests
    assert all(f"limit={min(max(limit, 1), 500)}" in path and "deployment=d" in path for path in paths)
