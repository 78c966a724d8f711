"""The installation's own secret."""

import multiprocessing
import pickle
import stat
from pathlib import Path

import pytest

from modelkeep.contracts.errors import Invalid
from modelkeep.infra import site_key


def test_it_is_made_once_and_stays(tmp_path: Path):
    path = tmp_path / "keys" / "site.key"
    first = site_key.opened(path)
    assert site_key.opened(path).derive("one") == first.derive("one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["site.key"]


def test_purposes_and_installations_share_nothing(tmp_path: Path):
    one, other = site_key.opened(tmp_path / "one"), site_key.opened(tmp_path / "other")
    assert len({one.derive("a"), one.derive("b"), other.derive("a"), other.derive("b")}) == 4
    assert len(one.derive("a", 64)) == 64


def _derived(path: Path) -> bytes:
    return site_key.opened(path).derive("a")


def test_all_who_ask_at_once_get_the_same(tmp_path: Path):
    with multiprocessing.get_context("fork").Pool(8) as pool:
        for number in range(20):
            assert len(set(pool.map(_derived, [tmp_path / str(number)] * 8))) == 1


@pytest.mark.parametrize("content", [b"", b"\xff", b"zz" * 32, b"00" * 31, b"00" * 33])
def test_what_is_no_key_is_refused_and_left_alone(tmp_path: Path, content: bytes):
    path = tmp_path / "site.key"
    path.write_bytes(content)
    with pytest.raises(Invalid):
        site_key.opened(path)
    assert path.read_bytes() == content


def test_it_does_not_print_itself(tmp_path: Path):
    key = site_key.opened(tmp_path / "site.key")
    shown = (tmp_path / "site.key").read_text().strip()
    assert shown not in f"{key} {key!r}"


def test_a_key_is_replaced_in_three_steps_and_between_them_everybody_opens_what_anybody_sealed(tmp_path: Path):
    path = tmp_path / "site.key"
    before = site_key.opened(path)
    site_key.add(path)
    waiting = site_key.opened(path)
    with pytest.raises(site_key.SiteKeyRotationUnderWay):
        site_key.add(path)
    with pytest.raises(site_key.SiteKeyRotationUnderWay):
        site_key.forget(path)
    assert waiting.derive("a") == before.derive("a")
    assert site_key.turned(path).derive_all("a") == tuple(reversed(waiting.derive_all("a")))
    for _twice in range(2):
        site_key.turn(path)
        turned = site_key.opened(path)
        assert turned.derive_all("a") == tuple(reversed(waiting.derive_all("a")))
    site_key.forget(path)
    assert site_key.opened(path).derive_all("a") == turned.derive_all("a")[:1] != before.derive_all("a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["site.key"]


def test_it_is_not_pickled(tmp_path: Path):
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(site_key.opened(tmp_path / "site.key"))
