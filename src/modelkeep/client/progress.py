"""Bars that show how far bytes have come, in a terminal or a notebook, for callers who ask for one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]


@contextmanager
def shown(what: str, on_progress: Progress | None, *, bar: bool) -> Iterator[Progress | None]:
    """Yield what to call with bytes done and in all: the caller's own, a bar where one is wanted, or None for nobody."""
    if not bar:
        yield on_progress
        return
    try:
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars
    except ImportError:  # it is no part of the client's own needs
        yield on_progress
        return
    with Bars(TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn()) as bars:
        task = bars.add_task(what, total=None)

        def tell(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)
            if on_progress is not None:
                on_progress(done, total)

        yield tell
