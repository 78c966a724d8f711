"""Before anything starts: what is needed for Redis is there, and its address, which holds a password, goes to servers alone."""

import socket
import sys
from pathlib import Path

import msgspec
import pytest

from modelkeep.app.places import Places
from modelkeep.app.roles import roles
from modelkeep.app.settings import InvalidSettings, explain, load
from modelkeep.app.sharing import check_redis
from modelkeep.contracts.errors import Invalid
from modelkeep.contracts.secret import NO_SECRET, Secret

URL = "rediss://limits:s3cret@redis.internal:6379/1?ssl_ca_certs=/etc/ca.pem"


def test_the_address_goes_to_servers_alone(tmp_path: Path) -> None:
    settings = load(overrides={"limits.redis_url": URL})
    with socket.socket() as door, socket.socket() as inner:
        told = {role.name: role.settings for role in roles(settings, Places(tmp_path), [door], inner)}
    assert {name for name, told_of in told.items() if b"s3cret" in told_of} == {"server-1"}
    assert msgspec.json.decode(told["server-1"])["limits"]["redis_url"] == URL
    assert "s3cret" not in repr(settings)


def test_what_seals_shared_answers_goes_to_servers_alone_and_is_that_of_the_installation(tmp_path: Path) -> None:
    settings = load(overrides={"serving.cache_redis_url": URL})

    def told(folder: Path) -> dict[str, bytes]:
        with socket.socket() as door, socket.socket() as inner:
            return {role.name: role.settings for role in roles(settings, Places(folder), [door], inner)}

    once, again, other = told(tmp_path / "one"), told(tmp_path / "one"), told(tmp_path / "two")
    secrets = [msgspec.json.decode(one["server-1"])["answers_secret"] for one in (once, again, other)]
    assert len(bytes.fromhex(secrets[0])) == 32
    assert secrets[0] == secrets[1] != secrets[2]
    for secret in ("s3cret", secrets[0]):
        assert {name for name, told_of in once.items() if secret.encode() in told_of} == {"server-1"}
    with socket.socket() as door, socket.socket() as inner:
        (server, *_) = roles(load(), Places(tmp_path / "none"), [door], inner)
    assert msgspec.json.decode(server.settings)["answers_secret"] == ""


def test_parameters_that_are_none_are_named_by_their_own_setting() -> None:
    with pytest.raises(Invalid, match=r"serving\.cache_redis_url"):
        check_redis(Secret(URL + "&what=1"), "serving.cache_redis_url")


def test_who_shows_settings_hides_the_password() -> None:
    (shown,) = [one.value for one in explain(overrides={"limits.redis_url": URL}) if one.name == "limits.redis_url"]
    assert shown == URL.replace("s3cret", "***")


def test_an_address_of_something_else_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidSettings) as refused:
        load(overrides={"limits.redis_url": "http://limits:s3cret@h"})
    assert "redis://" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("end", ["&what=1", "&socket_timeout=soon"])
def test_parameters_that_are_none_are_refused_before_anything_starts(end: str) -> None:
    check_redis(NO_SECRET)
    check_redis(Secret(URL))
    with pytest.raises(Invalid, match=r"limits\.redis_url") as refused:
        check_redis(Secret(URL + end))
    assert "s3cret" not in str(refused.value)


def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "modelkeep.infra.redis_rates", raising=False)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    check_redis(NO_SECRET)
    with pytest.raises(Invalid, match=r"modelkeep\[redis\]"):
        check_redis(Secret(URL))
