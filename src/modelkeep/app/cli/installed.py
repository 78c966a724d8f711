"""What is installed here: the client and these commands always, the server where it was asked for."""

from importlib.util import find_spec
from typing import Final

from modelkeep.app.cli.problems import WrongUse

_OF_THE_SERVER: Final = ("fastapi", "onnxruntime", "sqlalchemy", "uvicorn")


def need_server(command: str) -> None:
    """Refuse a command that needs the server's libraries where they are missing."""
    if any(find_spec(name) is None for name in _OF_THE_SERVER):
        raise WrongUse(
            f"`modelkeep {command}` needs the server, and only the client is installed here.",
            "Install it with: pip install 'modelkeep[server]'",
        )
