"""`modelkeep predict`: rows or pictures in, answers out."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelkeep.app.cli.connect import connected, refined
from modelkeep.app.cli.options import DEFAULT_URL, ApiKey, AsJson, ModelName, Url
from modelkeep.app.cli.problems import WrongUse
from modelkeep.app.cli.screen import Cell, Screen

if TYPE_CHECKING:
    from modelkeep.client import Client, Prediction

EXAMPLES = """[bold]Examples[/bold]

  modelkeep predict churn --file rows.csv

  modelkeep predict churn --rows '\\[{"age": 41, "plan": "pro"}]'

  modelkeep predict churn --file rows.csv --version champion

  modelkeep predict churn --file rows.csv --output label

  modelkeep predict photos --image cat.jpg --image dog.jpg --top-k 3

  head -3 rows.csv | modelkeep predict churn --json
"""


def predict(
    name: ModelName,
    *,
    rows: Annotated[str | None, typer.Option(metavar="JSON", help="Rows as JSON: lists, records or columns.")] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows in a file: .csv, .json or .jsonl; - is stdin.")
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(metavar="PICTURE", help="A picture; give it several times for several.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, metavar="N", help="How many labels to name for each.")] = None,
    output: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="An output to answer with; several times for several.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Alias or number of the version to ask, if not the promoted one.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Ask a model for predictions, on rows or pictures."""
    inputs = _inputs(rows, file, image or [])
    screen = Screen(as_json=as_json)
    rows_only = f"{name} takes rows: give them with --file or --rows."
    with (
        connected(url, key, model=name, interrupted="No answer came yet.") as client,
        refined("unsupported_media_type", rows_only),
        refined("version_not_served", f"`modelkeep alias list {name}` lists the aliases."),
    ):
        prediction = _ask(client, name, inputs, {"top_k": top_k, "version": version, "outputs": output or []})
    screen.result(prediction.raw, lambda: _show(screen, prediction, [one.name for one in image or []]))


def _ask(client: "Client", name: str, inputs: Any, wish: dict[str, Any]) -> "Prediction":  # noqa: ANN401 - rows or pictures
    """Ask; where a table has named columns and the model's have no names, ask again with the values in their order."""
    from modelkeep.client import Invalid

    try:
        return client.predict(name, inputs, **wish)
    except Invalid as error:
        unnamed = any(field.code == "no_column_names" for field in error.fields)
        if not unnamed or not isinstance(inputs, dict):
            raise
    return client.predict(name, [list(row) for row in zip(*inputs.values(), strict=True)], **wish)


def _inputs(rows: str | None, file: Path | None, images: list[Path]) -> Any:  # noqa: ANN401 - rows or pictures
    from modelkeep.app.cli.rows import NOTHING, STDIN, from_bytes, from_file, from_text

    if sum((rows is not None, file is not None, bool(images))) > 1:
        raise WrongUse("Give one of --rows, --file and --image.")
    if rows is not None:
        return from_text(rows, "--rows")
    if images:
        for picture in images:
            if picture.is_dir():
                raise WrongUse(f"{picture} is a directory; --image takes a picture.")
            if not picture.is_file():
                raise WrongUse(f"There is no picture {picture}.", "Check the path; it is taken from where you are.")
        return images
    if file is not None and str(file) != "-":
        return from_file(file)
    if file is None and sys.stdin.isatty():
        raise WrongUse("There is nothing to predict on.", NOTHING)
    return from_bytes(sys.stdin.buffer.read(), STDIN)


def _show(screen: Screen, prediction: "Prediction", names: list[str]) -> None:
    if prediction.predictions:
        screen.table(*_labels(prediction, names))
    if prediction.raw.get("outputs") or not prediction.predictions:
        screen.table(*_outputs(prediction))
    screen.news(f"{prediction.model} version {prediction.version} · {prediction.id}")


def _labels(prediction: "Prediction", names: list[str]) -> tuple[list[str], list[list[Cell]]]:
    """One line a label; where there are several rows or pictures, the first column says which."""
    lines: list[list[Cell]] = []
    several = len(prediction.predictions) > 1
    for number, labels in enumerate(prediction.predictions):
        which = names[number] if number < len(names) else str(number)
        lines += [[*([which] if several else []), one.label, f"{one.score:.4f}"] for one in labels]
    first = ["picture" if names else "row"] if several else []
    return [*first, "label", "score"], lines


def _outputs(prediction: "Prediction") -> tuple[list[str], list[list[Cell]]]:
    """One line a row, one column an output."""
    outputs = prediction.raw.get("outputs") or {}
    columns = {name: [_text(value) for value in values] for name, values in outputs.items()}
    if prediction.labels and prediction.labels != columns.get("label"):
        columns = {"class": list(prediction.labels), **columns}
    count = max(map(len, columns.values()), default=0)
    lines: list[list[Cell]] = [[number, *(values[number] for values in columns.values())] for number in range(count)]
    return ["row", *columns], lines


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        shown = ", ".join(_text(one) for one in value[:8])
        return f"[{shown}{', ...' if len(value) > 8 else ''}]"  # noqa: PLR2004 - what fits a line
    return "" if value is None else str(value)
