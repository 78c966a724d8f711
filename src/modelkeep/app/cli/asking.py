"""Asks for what nobody else may see: at a terminal, without showing it, or from a pipe; never as a word of the command line."""

import sys
from getpass import getpass
from typing import Annotated

import typer

from modelkeep.app.cli.problems import WrongUse

Piped = Annotated[bool, typer.Option("--password-stdin", metavar="", help="Read what is secret from stdin, a line for each.")]
NO_TERMINAL = "Pipe it in with --password-stdin, so that it stands neither on a command line nor in the environment."


def ask(what: str) -> str:
    """Return what is typed at the terminal, and seen."""
    _need_terminal(what)
    sys.stderr.write(f"{what}: ")
    sys.stderr.flush()
    return _given(sys.stdin.readline(), what)


def ask_secret(what: str, *, piped: bool, twice: bool = False) -> str:
    """Return what is typed at the terminal, unseen, or the next line of what is `piped` in; `twice` where it is a new one."""
    if piped:
        return _given(sys.stdin.readline(), what)
    _need_terminal(what)
    typed = _given(getpass(f"{what}: ", stream=sys.stderr), what)
    if twice and getpass(f"{what} again: ", stream=sys.stderr) != typed:
        raise WrongUse("That was not the same twice.")
    return typed


def _need_terminal(what: str) -> None:
    if not sys.stdin.isatty():
        raise WrongUse(f"There is no terminal here to ask for the {what[0].lower()}{what[1:]}.", NO_TERMINAL)


def _given(line: str, what: str) -> str:
    text = line.rstrip("\r\n")
    if not text:
        raise WrongUse(f"{what}: nothing was given.")
    return text
