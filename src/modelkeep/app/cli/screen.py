"""What a command shows: results on stdout (tables for people, tab-separated lines for pipes, or JSON), news on stderr."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Cell = str | int | float | None
_CONTROLS = dict.fromkeys({*range(0x20), 0x7F, *range(0x80, 0xA0)} - {ord("\n"), ord("\t")}, "\N{REPLACEMENT CHARACTER}")
MEGABYTE = 1_000_000


class Screen:
    """Shows what happened, in the form that was asked for."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @cached_property
    def out(self) -> "Console":
        """The console of results."""
        from rich.console import Console

        return Console(highlight=False, soft_wrap=True)

    @cached_property
    def err(self) -> "Console":
        """The console of news."""
        from rich.console import Console

        return Console(stderr=True, highlight=False, soft_wrap=True)

    @property
    def live(self) -> bool:
        """Whether somebody watches, and bars and spinners make sense."""
        return not self.as_json and sys.stderr.isatty()

    def result(self, document: Any, show: Callable[[], None]) -> None:  # noqa: ANN401 - any JSON value
        """Print `document` as JSON when JSON was asked for; otherwise call `show`, which prints it for people."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        else:
            show()

    def say(self, text: str) -> None:
        """Print a line of the result."""
        self.out.print(plain(text), markup=False)

    def news(self, text: str) -> None:
        """Print a line that is not part of the result."""
        if not self.as_json:
            self.err.print(plain(text), markup=False, style="dim")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, empty: str = "") -> None:
        """Print rows: a table on a terminal, tab-separated lines elsewhere."""
        texts = [["" if cell is None else plain(str(cell)) for cell in row] for row in rows]
        if not sys.stdout.isatty():
            sys.stdout.writelines("\t".join(line).replace("\n", " ") + "\n" for line in [list(columns), *texts])
        elif not rows:
            self.news(empty)
        else:
            self._draw(columns, texts)

    def facts(self, pairs: Mapping[str, Cell]) -> None:
        """Print names and values, those that have one."""
        known = {name: str(value) for name, value in pairs.items() if value not in {None, ""}}
        width = max(map(len, known), default=0)
        for name, value in known.items():
            self.say(f"{name:<{width}}  {value}")

    @contextmanager
    def transfer(self, what: str) -> Iterator[Callable[[int, int], None] | None]:
        """Show a bar while bytes travel; yields what to call with bytes done and bytes in all."""
        if not self.live:
            yield None
            return
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.err, transient=True) as progress:
            bar = progress.add_task(what, total=None)

            def advance(done: int, total: int) -> None:
                progress.update(bar, completed=done, total=total)

            yield advance

    @contextmanager
    def waiting(self, what: str) -> Iterator[Callable[[str], None]]:
        """Show a spinner while something goes on; yields what to call with its next state."""
        if not self.live:
            yield self.news
            return
        with self.err.status(what) as status:
            yield lambda text: status.update(plain(text))

    def _draw(self, columns: Sequence[str], texts: Sequence[Sequence[str]]) -> None:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for place, column in enumerate(columns):
            numbers = all(_is_number(line[place]) for line in texts)
            table.add_column(column, justify="right" if numbers else "left", overflow="fold")
        for line in texts:
            table.add_row(*(Text(cell) for cell in line))
        self.out.print(table)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("-", "", 1).isdigit() or not text


def plain(text: str) -> str:
    """Return the text without what would command a terminal: models, files and servers have a say in what is shown."""
    return text.translate(_CONTROLS)


def file_size(size: int) -> str:
    """Return a size in bytes as people read it."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:  # noqa: PLR2004 - decimal units, as disks are sold
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def when(text: str | None) -> str:
    """Return a time of the server in this machine's zone, to the minute."""
    from datetime import datetime

    if not text:
        return ""
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return text
