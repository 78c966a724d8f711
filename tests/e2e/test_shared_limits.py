"""Two server processes keep each limit as one would: a key's rate, and how many predictions of a deployment are under way."""

import pickle
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from fixtures.installation import Installation, eventually, installed

ROWS = {"inputs": [[13.0, 0.0]]}


class Tarries:
    """A model that takes a second for the row that begins with 13."""

    def __reduce__(self) -> tuple[object, ...]:
        code = (
            "type('Tarries', (__import__('sklearn.base').base.BaseEstimator,),"
            " {'n_features_in_': 2, '__sklearn_is_fitted__': lambda self: True, 'fit': lambda self, X: self,"
            " 'predict': lambda self, X: [__import__('time').sleep(1.0 if X[0][0] == 13 else 0.0), X[:, 0]][1]})()"
        )
        return eval, (code,)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with two server processes, a quick model, and a slow one that takes two requests at once."""
    folder: Path = tmp_path_factory.mktemp("pair")
    with installed(folder / "data", MODELKEEP_SERVER__PROCESSES="2") as house:
        (folder / "quick.echo").write_text('{"echo": 1}')
        (folder / "slow.pkl").write_bytes(pickle.dumps(Tarries()))
        with house.client() as client:
            client.push(folder / "quick.echo", "quick")
            client.push(folder / "slow.pkl", "slow")
            client.configure("slow", {"concurrency": 2, "batching": {"mode": "off"}, "replicas": {"min": 1, "max": 1}})
            eventually(
                lambda: all(len(one.raw["serving"]) == 2 for one in client.deployments()),
                "both servers answer with both models",
            )
        yield house


@contextmanager
def connections(house: Installation, each: int, key: str = "") -> Iterator[list[list[httpx.Client]]]:
    """Open `each` connections to each server at least, as the kernel spreads them; returned by server."""
    clients: list[httpx.Client] = []
    found: list[list[httpx.Client]] = [[], []]
    try:
        for _attempt in range(400):
            client = httpx.Client(base_url=house.url, headers={"X-API-Key": key or house.key}, timeout=30)
            clients.append(client)
            answer = client.get("/livez")
            port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
            slot = next(slot for slot in (0, 1) if port in accepted(house, slot))
            if len(found[slot]) < each:
                found[slot].append(client)
            if min(len(one) for one in found) == each:
                break
        assert [len(one) for one in found] == [each, each]
        yield found
    finally:
        for client in clients:
            client.close()


def server(house: Installation, slot: int) -> psutil.Process | None:
    return house.role(f"server-{slot + 1}")


def accepted(house: Installation, slot: int) -> set[int]:
    """The other ends' ports of the connections that a server has accepted."""
    process = server(house, slot)
    assert process is not None
    return {one.raddr.port for one in process.net_connections("tcp") if one.raddr and one.laddr.port == house.port}


def ask_at_once(clients: list[httpx.Client], deployment: str, times: int = 1) -> Counter[int | str]:
    """Ask `times` over each connection, all at the same time; return how often each status came."""
    begin = threading.Barrier(len(clients))
    came: list[int | str] = []

    def ask(client: httpx.Client) -> None:
        begin.wait()
        for _ in range(times):
            try:
                came.append(client.post(f"/api/v1/predict/{deployment}", json=ROWS).status_code)
            except httpx.HTTPError as error:
                came.append(type(error).__name__)

    threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(came)


def kill(house: Installation, slot: int) -> None:
    """kill -9 a server, and wait until its place is taken again."""
    victim = server(house, slot)
    assert victim is not None
    victim.send_signal(signal.SIGKILL)
    eventually(lambda: server(house, slot) not in {None, victim}, "the server is started again")
    eventually(lambda: reached(house, slot), "the new server answers")


def reached(house: Installation, slot: int) -> bool:
    with httpx.Client(base_url=house.url, headers={"X-API-Key": house.key}, timeout=30) as client:
        answer = client.post("/api/v1/predict/quick", json=ROWS)
        port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
        return answer.status_code == 200 and port in accepted(house, slot)


def test_a_key_is_let_through_as_often_as_by_one_server_and_a_killed_server_forgets_nothing(pair: Installation) -> None:
    with pair.http() as http:
        asked = {"name": "limited", "scopes": ["predict"], "rate": "1/min", "burst": 30}
        secret = http.post("/api/v1/keys", json=asked).raise_for_status().json()["secret"]
        eventually(
            lambda: all(
                httpx.get(f"{pair.url}/api/v1/deployments", headers={"X-API-Key": secret}).status_code != 401 for _ in range(12)
            ),
            "both servers know the key",
        )
    begun = time.monotonic()
    with connections(pair, 8, secret) as (first, second):
        came = ask_at_once([*first, *second], "quick", times=5)
    assert came == {200: 30, 429: 50}
    kill(pair, 0)
    with connections(pair, 2, secret) as (first, second):
        assert time.monotonic() - begun < 60, "too slow to tell"
        assert ask_at_once([*first, *second], "quick") == {429: 4}


def test_no_more_of_a_deployment_are_under_way_than_it_takes_and_a_killed_server_keeps_no_place(pair: Installation) -> None:
    with connections(pair, 8) as (first, second):
        for _round in range(2):
            assert ask_at_once([*first, *second], "slow") == {200: 2, 503: 14}
        dying: list[Counter[int | str]] = []
        held = threading.Thread(target=lambda: dying.append(ask_at_once(first[:2], "slow")))
        held.start()
        with pair.http() as http:
            eventually(
                lambda: "modelkeep_inflight_requests 3" in http.get("/metrics").text, "the first server holds both places"
            )
        assert ask_at_once(second[:1], "slow") == {503: 1}
        kill(pair, 0)
        held.join()
        assert sum(dying[0].values()) == 2
        assert dying[0][200] == 0, "it was killed with them"
    with connections(pair, 8) as (first, second):
        assert ask_at_once([*first, *second], "slow") == {200: 2, 503: 14}
