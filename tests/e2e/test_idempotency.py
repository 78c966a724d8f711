"""kill -9 of the api while keys are made, with the client that repeats: each is made once, and its secret arrives."""

import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from fixtures.installation import Installation, installed
from modelkeep.client import Client

ROUNDS = 5


def _kill(house: Installation, after_s: float) -> None:
    threading.Event().wait(after_s)  # anywhere in the request: no moment of it may matter
    process = house.role("api")
    if process is not None:
        process.kill()


@pytest.mark.timeout(180)
def test_keys_made_while_the_api_is_killed_are_made_once(tmp_path: Path):
    dice = random.Random(20261122)
    with installed(tmp_path / "data") as house, house.client(timeout=60, retries=50) as client:
        for number in range(ROUNDS):
            killer = threading.Thread(target=_kill, args=(house, dice.uniform(0, 0.03)))
            killer.start()
            made = client.create_key(f"k{number}", ["predict"])
            killer.join()
            assert made.secret
            with Client(house.url, made.secret, timeout=60, retries=50) as own:
                assert own.me().key.id == made.id
        made_keys = client.keys()
        names = Counter(one.name for one in made_keys)
    assert [names[f"k{number}"] for number in range(ROUNDS)] == [1] * ROUNDS
