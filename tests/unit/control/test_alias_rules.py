"""What an alias may be called, and what moving one leaves behind."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.errors import InvalidName
from modelkeep.control.models.aliases import MOST_ALIASES, Alias, Move, check_alias, point, remove
from modelkeep.control.models.errors import AliasStale, InvalidAlias, TooManyAliases
from modelkeep.control.models.rules import State, Version

NOW = datetime(2026, 1, 1, tzinfo=UTC)
names = st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,62}\Z")


def version(number: int) -> Version:
    return Version(
        id=f"ver_{number}",
        model_id="mdl_1",
        model="m",
        number=number,
        state=State.READY,
        format="onnx",
        runner="onnx",
        filename="m.onnx",
        size=1,
        digest="0" * 64,
        description="",
        created_at=NOW,
        created_by="ada",
    )


def alias(name: str = "champion", number: int = 1, revision: int = 1) -> Alias:
    return Alias("mdl_1", name, f"ver_{number}", number, revision, NOW, "ada")


@pytest.mark.parametrize("name", ["champion", "canary", "a", "2026-q1", "v3.1", "3.0", "v", "prod_eu", "x" * 63, "latest-1"])
def test_names_that_read_as_no_number_are_aliases(name: str):
    assert check_alias(name) == name


@pytest.mark.parametrize("name", ["", "Champion", "-a", "a b", "x" * 64, "a/b", "..", "é", "champion\n"])
def test_what_is_no_name_is_no_alias(name: str):
    with pytest.raises(InvalidName) as refused:
        check_alias(name)
    assert not name.strip() or name not in str(refused.value)


@given(st.integers(0, 10**9), st.sampled_from(["", "v"]), st.integers(0, 3))
def test_no_alias_reads_as_the_number_of_a_version(number: int, before: str, zeros: int):
    with pytest.raises(InvalidAlias):
        check_alias(f"{before}{'0' * zeros}{number}")


def test_the_newest_version_cannot_be_an_aliass_name():
    with pytest.raises(InvalidAlias):
        check_alias("latest")


@given(names)
def test_every_name_is_an_alias_or_reads_as_something_else(name: str):
    reads_as_number = name.removeprefix("v").isdigit()
    try:
        check_alias(name)
    except InvalidAlias:
        assert reads_as_number or name == "latest"
    else:
        assert not reads_as_number
        assert not name.isdigit()


@given(st.lists(st.one_of(st.none(), st.integers(1, 3)), max_size=40))
def test_moves_are_numbered_without_gaps_and_each_begins_where_the_last_one_ended(wishes: list[int | None]):
    """None deletes the alias. The history tells at each moment where it points."""
    there: list[Alias] = []
    history: list[Move] = []
    for wish in wishes:
        before = there[0].version if there else None
        if wish is not None:
            after, move = point(there, "champion", version(wish), moves=len(history), expected=None, by="ada", now=NOW)
            assert (after.version, after.version_id) == (wish, f"ver_{wish}")
            assert (move is None) == (before == wish)
            there = [after]
        elif there:
            move = remove(there[0], expected=there[0].revision, by="ada", now=NOW)
            there = []
        else:
            continue
        if move is not None:
            assert (move.from_version, move.to_version) == (before, wish)
            history.append(move)
        assert not there or there[0].revision == len(history)
    assert [one.revision for one in history] == list(range(1, len(history) + 1))
    ends = [None, *(one.to_version for one in history)]
    assert [one.from_version for one in history] == ends[:-1]
    assert ends[-1] == (there[0].version if there else None)


def test_whoever_has_seen_another_revision_changes_nothing_and_is_told_the_present_one():
    present = alias(revision=7)
    for expected in (6, 8, 0):
        with pytest.raises(AliasStale, match="revision 7"):
            point([present], "champion", version(2), moves=7, expected=expected, by="ada", now=NOW)
        with pytest.raises(AliasStale, match="revision 7"):
            remove(present, expected=expected, by="ada", now=NOW)
    with pytest.raises(AliasStale, match="does not exist"):
        point([], "champion", version(2), moves=7, expected=7, by="ada", now=NOW)
    made, move = point([], "champion", version(2), moves=7, expected=0, by="bob", now=NOW)
    assert (made.revision, made.changed_by) == (8, "bob")
    assert move is not None
    assert (move.by, move.from_version) == ("bob", None)


def test_a_model_has_a_bounded_number_of_aliases_and_those_that_are_there_still_move():
    there = [alias(f"a{at}") for at in range(MOST_ALIASES)]
    with pytest.raises(TooManyAliases):
        point(there, "one-more", version(2), moves=0, expected=None, by="ada", now=NOW)
    after, move = point(there, "a5", version(2), moves=1, expected=None, by="ada", now=NOW)
    assert move is not None
    assert after.version == 2
