"""What the courier says of the history's loading, and what a server shows of it."""

from pathlib import Path

import pytest

from modelkeep.infra.loading import Loading, hear, say


@pytest.mark.parametrize(
    ("said", "now", "lag_s"),
    [
        (Loading(100.0, 0.0, 0), 100.5, 0.0),
        (Loading(100.0, 90.0, 0), 100.5, 10.5),
        (Loading(100.0, 0.0, 0), 160.0, 60.0),
        (Loading(100.0, 90.0, 0), 160.0, 70.0),
        (Loading(100.0, 0.0, 0), 99.0, 0.0),
    ],
    ids=["all loaded", "behind", "silent", "behind and silent", "clock set back"],
)
def test_the_lag_is_the_age_of_what_waits_and_of_a_silence(said: Loading, now: float, lag_s: float, tmp_path: Path) -> None:
    assert said.lag_s(now) == lag_s
    say(tmp_path / "said", said)
    assert hear(tmp_path / "said", lambda: now) == (lag_s, 0)


def test_before_anything_was_said_there_is_nothing_to_show(tmp_path: Path) -> None:
    assert hear(tmp_path / "said") is None
    (tmp_path / "said").write_bytes(b"\xc1")
    assert hear(tmp_path / "said") is None


def test_what_was_said_last_counts(tmp_path: Path) -> None:
    for lost in range(3):
        say(tmp_path / "said", Loading(100.0, 0.0, lost))
    assert hear(tmp_path / "said", lambda: 101.0) == (0.0, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["said"]
