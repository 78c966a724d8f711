"""Options that several commands take."""

from typing import Annotated

import typer

from modelkeep.app.cli.completion import DEFAULT_URL, model_names

__all__ = ["DEFAULT_URL", "SERVER", "ApiKey", "AsJson", "ModelName", "Url"]

SERVER = "Server"

Url = Annotated[
    str, typer.Option("--url", envvar="MODELKEEP_URL", help="Address of the server.", metavar="URL", rich_help_panel=SERVER)
]
ApiKey = Annotated[
    str,
    typer.Option(
        "--key", envvar="MODELKEEP_API_KEY", help="API key.", metavar="KEY", show_default=False, rich_help_panel=SERVER
    ),
]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON and nothing else; an error is JSON on stderr.")]
ModelName = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the model.", show_default=False, autocompletion=model_names)
]
