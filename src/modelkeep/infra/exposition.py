"""Writes metrics in Prometheus' text format, or in OpenMetrics. What stands before each number is built once and kept.

A scrape runs between two predictions: this takes about a tenth of the time that `generate_latest` of prometheus_client does
for the same page. The tests hold it against that library's parsers.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final

from modelkeep.infra.tally import Family, Labels

TEXT: Final = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = b"application/openmetrics-text; version=1.0.0; charset=utf-8"

_SPECIAL: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_SPECIAL_ABOUT: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Exposition:
    """Turns sums into a page; it keeps the beginnings of lines from one page to the next."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, Labels], tuple[str, ...]] = {}

    def page(
        self, families: Sequence[Family], sums: Mapping[Family, Mapping[Labels, Sequence[float]]], *, openmetrics: bool = False
    ) -> bytes:
        """Return all families that have a number, in their order.

        A histogram's numbers are the counts of its buckets, one for what lies above, and the sum; others have one number.
        """
        kept: dict[tuple[str, Labels], tuple[str, ...]] = {}
        parts: list[str] = []
        for family in families:
            series = sums.get(family)
            if not series:
                continue
            parts.append(_head(family, openmetrics=openmetrics))
            for values, numbers in series.items():
                key = (family.name, values)
                lines = kept[key] = self._lines.get(key) or _beginnings(family, values)
                shown = _histogram(numbers) if family.kind == "histogram" else numbers
                parts += [f"{line}{_number(number)}\n" for line, number in zip(lines, shown, strict=True)]
        self._lines = kept
        if openmetrics:
            parts.append("# EOF\n")
        return "".join(parts).encode()


def wants_openmetrics(accept: bytes | None) -> bool:
    """Whether an `Accept` header asks for OpenMetrics, as Prometheus' does."""
    return accept is not None and b"application/openmetrics-text" in accept.lower()


def _head(family: Family, *, openmetrics: bool) -> str:
    name, kind = family.name, str(family.kind)
    if openmetrics:
        name = name.removesuffix({"counter": "_total", "info": "_info"}.get(kind, ""))
    elif kind == "info":
        kind = "gauge"
    about = family.about.translate(_SPECIAL if openmetrics else _SPECIAL_ABOUT)
    return f"# HELP {name} {about}\n# TYPE {name} {kind}\n"


def _beginnings(family: Family, values: Labels) -> tuple[str, ...]:
    """Return each line of a series up to its number."""
    labels = [f'{name}="{value.translate(_SPECIAL)}"' for name, value in zip(family.labels, values, strict=True)]
    if family.kind != "histogram":
        return (_beginning(family.name, labels),)
    bounds = [*(_number(float(bound)) for bound in family.bounds), "+Inf"]
    buckets = [_beginning(f"{family.name}_bucket", [*labels, f'le="{bound}"']) for bound in bounds]
    return (*buckets, _beginning(f"{family.name}_count", labels), _beginning(f"{family.name}_sum", labels))


def _beginning(name: str, labels: list[str]) -> str:
    return f"{name}{{{','.join(labels)}}} " if labels else f"{name} "


def _histogram(numbers: Sequence[float]) -> list[float]:
    """From counts of buckets and the sum to what is shown: counts up to each bound, the count of all, the sum."""
    *counts, total = numbers
    upto = list(accumulate(counts))
    return [*upto, upto[-1], total]


def _number(number: float) -> str:
    if math.isfinite(number):
        return repr(number)
    return "NaN" if math.isnan(number) else "+Inf" if number > 0 else "-Inf"
