"""What administrators do about people and services on the command line."""

import pytest

from fixtures.standin_people import LINK


@pytest.fixture
def bob(command):
    done = command("users", "add", "bob", "--email", "bob@example.org", "--role", "developer")
    assert done.out == "bob is added (usr_1). What lets them in:  modelkeep users reset usr_1\n"
    return "usr_1"


def test_people_and_services_are_added_listed_and_shown(command, standin, bob):
    done = command("users", "add", "robot", "--service")
    assert done.out == "robot is added (usr_2). What lets them in:  modelkeep keys create NAME --service usr_2\n"
    lines = [line.split("\t") for line in command("users", "list").out.splitlines()]
    assert lines[0] == ["id", "name", "e-mail", "kind", "status", "added"]
    assert [line[1:5] for line in lines[1:]] == [
        ["robot", "", "service", "active"],
        ["bob", "bob@example.org", "person", "active"],
    ]
    shown = command("users", "show", bob).out
    assert "bob@example.org" in shown
    assert "developer on installation" in shown
    assert command("users", "show", bob, "--json").document["roles"][0]["id"] == "grt_1"
    assert command("keys", "create", "nightly", "--service", "usr_2").code == 0
    assert standin.keys[0]["service"] == "usr_2"


def test_a_long_list_is_read_page_by_page_and_cut_where_it_was_asked_to_be(command):
    for number in range(5):
        command("users", "add", f"person{number}")
    assert len(command("users", "list", "--json").document) == 5
    done = command("users", "list", "-n", "3")
    assert len(done.out.splitlines()) == 4
    assert "There may be more than 3" in done.err
    assert command("users", "list").err == ""


def test_the_tokens_of_people_stand_alone_on_stdout(command, bob):
    for arguments in (("users", "reset", bob), ("users", "invite", "--email", "eve@example.org", "--role", "viewer")):
        done = command(*arguments)
        assert done.out == f"{LINK}\n"
        assert LINK not in done.err
        assert "not shown again" in done.err
    assert "modelkeep register NAME eve@example.org" in done.err
    assert "modelkeep password --link" in command("users", "reset", bob).err
    assert command("users", "reset", bob, "--json").document["token"] == LINK


def test_somebody_is_let_in_no_more_and_again_and_signed_out(command, bob):
    assert command("users", "disable", bob).out == "bob (usr_1) is disabled.\n"
    assert command("users", "list").out.splitlines()[1].split("\t")[4] == "disabled"
    assert command("users", "enable", bob).out == "bob (usr_1) is active.\n"
    assert command("users", "sign-out", bob).out == "All sessions of usr_1 have ended.\n"


def test_a_user_is_renamed(command, standin, bob):
    done = command("users", "rename", bob, "bob.m", "--display-name", "Bob Moore")
    assert done.out == "usr_1 is bob.m, shown as Bob Moore.\n"
    assert (standin.people.users[0]["name"], standin.people.users[0]["display_name"]) == ("bob.m", "Bob Moore")
    assert command("users", "rename", bob, "bob").out == "usr_1 is bob, shown as Bob Moore.\n"
    assert command("users", "rename", bob).code == 2
    assert "`modelkeep users list` shows the ids." in command("users", "rename", "usr_9", "eve").err


@pytest.mark.parametrize("action", ["show", "reset", "disable", "enable", "sign-out"])
def test_who_is_not_there_is_said_not_to_be(command, action):
    done = command("users", action, "usr_none")
    assert done.code == 3
    assert "`modelkeep users list` shows the ids." in done.err


def test_invitations_are_listed_and_withdrawn(command):
    assert command("invitations", "list").out.splitlines() == ["id\tfor\trole\tmade\tby\texpires"]
    command("users", "invite", "--role", "viewer")
    assert command("invitations", "list").out.splitlines()[1].startswith("lnk_1\t\tviewer\t")
    assert LINK not in command("invitations", "list", "--json").out
    assert command("invitations", "withdraw", "lnk_1").out == "lnk_1 is good no more.\n"
    done = command("invitations", "withdraw", "lnk_1")
    assert (done.code, "`modelkeep invitations list` shows the ids." in done.err) == (3, True)


def test_what_cannot_be_is_refused_before_anybody_is_asked(command, standin):
    done = command("users", "add", "bob", "--role", "developr")
    assert (done.code, "Did you mean developer?" in done.err) == (2, True)
    assert command("users", "invite", "--role", "boss").code == 2
    assert command("users", "add", "robot", "--service", "--email", "robot@example.org").code == 2
    assert command("users", "list", "-n", "0").code == 2
    assert standin.requests == []


def test_signing_keys_are_rotated(command):
    assert command("keys", "rotate-signing").out.startswith("A new signing key is published. It signs from 2026-11-21")
    assert command("keys", "rotate-signing", "--json").document == {"signs_from": "2026-11-21T10:00:00Z"}
