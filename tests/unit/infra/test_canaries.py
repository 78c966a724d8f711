"""The search for secrets finds what is planted, in every way of writing it, or it would prove nothing."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote_plus

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.canaries import Captured, canary, found_in, found_in_file, found_in_processes, left_behind
from fixtures.people import PASSWORD
from modelkeep.infra.secrets import KEY, LINK, REFRESH, SETUP, new_secret

PLANTED = canary("test")
AROUND = st.binary(max_size=20)


@given(AROUND, AROUND)
def test_a_planted_secret_is_found_however_it_is_written(before: bytes, after: bytes) -> None:
    raw = PLANTED.encode()
    written = [
        raw,
        raw.hex().encode(),
        PLANTED.encode("utf-16"),
        json.dumps({"a": f"x{PLANTED}y"}).encode(),
        quote_plus(f"a b&{PLANTED}").encode(),
        base64.b64encode(before + raw + after),
        base64.urlsafe_b64encode(before + raw + after),
        repr(raw).encode(),
    ]
    for one in written:
        data = one if b"=" in one else before + one + after
        assert found_in(data, (PLANTED,)) == [f"{PLANTED[:16]}..."], one


@given(st.binary(max_size=500))
def test_what_holds_none_is_not_taken_for_one(data: bytes) -> None:
    assert found_in(data, (PLANTED,)) == []


@pytest.mark.parametrize("prefix", [KEY, SETUP, REFRESH, LINK])
def test_our_own_keys_tell_themselves_and_what_only_looks_so_does_not(prefix: str) -> None:
    secret = new_secret(prefix).reveal()
    last = "A" if secret[-1] != "A" else "B"
    assert found_in(f'{{"key": "{secret}"}}'.encode()) == [f"{secret[:16]}..."]
    assert found_in((secret[:-1] + last).encode()) == []


def test_files_are_searched_but_for_what_serve_announces(tmp_path: Path) -> None:
    token, key = new_secret(SETUP).reveal(), new_secret(KEY).reveal()
    announced = f"ready\n  modelkeep setup --url http://127.0.0.1:8080 --token {token}\n"
    log, database = tmp_path / "data.log", tmp_path / "modelkeep.db"
    log.write_text(announced)
    database.write_bytes(b"")
    assert list(left_behind(tmp_path)) == []
    log.write_text(f"{announced}token {token}\n")
    database.write_bytes(b"\0" * 100 + key.encode())
    (tmp_path / "predictions.db").write_text(f"'{PASSWORD}'")
    assert len(list(left_behind(tmp_path))) == 3
    assert found_in_file(database) == [f"{key[:16]}..."]
    for path in tmp_path.iterdir():
        path.unlink()  # or the search at the end of the session would find them, as it has to


@pytest.mark.parametrize("place", ["cmdline", "environ"])
def test_processes_are_searched(place: str) -> None:
    command = [sys.executable, "-c", "print(flush=True); input()"]
    arguments, environment = ([PLANTED], {}) if place == "cmdline" else ([], {"A": PLANTED})
    with subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert found_in_processes([psutil.Process(child.pid)], (PLANTED,)) == [f"{PLANTED[:16]}..."]
        assert found_in_processes([psutil.Process(child.pid)]) == []
        child.communicate(b"\n")


def test_what_a_test_prints_is_searched(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"def test_one():\n    print('the key is {new_secret(KEY).reveal()}')\n\ndef test_two():\n    print('ok')\n"
    )
    captured = Captured()
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.inline_run("-p", "no:cacheprovider", plugins=[captured])
    assert captured.searched == 2
    (leak,) = captured.leaks
    assert "test_one" in leak
    assert "mk_" in leak
