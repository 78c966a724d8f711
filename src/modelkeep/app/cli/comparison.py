"""How the answers of two versions compare, on the screen: of a shadow, and of a replay against a candidate."""

from collections.abc import Mapping
from typing import Any

from modelkeep.app.cli.screen import Cell, Screen

_MOST_VALUES = 4
_BAR = 40


def show(screen: Screen, found: Mapping[str, Any], *, names: tuple[str, str]) -> None:
    """Show outputs, distances, confused classes, slices and worst rows, and the times of both."""
    ours, theirs = names
    times = {f"{name}, runs": _times(found.get(f"{key}_ms") or {}) for name, key in zip(names, _keys(found), strict=True)}
    screen.facts(times)
    if found["outputs"]:
        columns = ("output", "compared", "rows", "differ", "half within", "90 % within", "99 % within")
        screen.table(columns, [_output(one) for one in found["outputs"]])
    for one in found["outputs"]:
        _distances(screen, one)
        if one["confused"]:
            lines: list[list[Cell]] = [[pair["primary"], pair["shadow"], pair["rows"]] for pair in one["confused"]]
            screen.table((f"{one['name']}: {ours} says", f"{theirs} says", "rows"), lines)
    if any(one["differ"] for one in found["slices"]):
        worst: list[list[Cell]] = [
            [one["column"], one["says"], one["rows"], one["differ"], percent(one["least"])]
            for one in found["slices"]
            if one["differ"]
        ]
        screen.table(("column", "rows that are", "rows", "differ", "surely at least"), worst)
    if found["worst"]:
        screen.table(
            ("prediction", "row", "distance", f"{ours} says", f"{theirs} says", "asked"), [_row(one) for one in found["worst"]]
        )


def _keys(found: Mapping[str, Any]) -> tuple[str, str]:
    return ("primary", "shadow") if "primary_ms" in found else ("replayed", "candidate")


def _output(one: Mapping[str, Any]) -> list[Cell]:
    within = [one["relative"][part] for part in ("p50", "p90", "p99")]
    return [
        one["name"],
        one["kind"],
        one["rows"],
        one["differ"],
        *(None if part is None else percent(part) for part in within),
    ]


def _distances(screen: Screen, one: Mapping[str, Any]) -> None:
    """Draw how many rows are how far apart."""
    most = max((rows for _bound, rows in one["histogram"]), default=0)
    if len(one["histogram"]) > 1:
        lines: list[list[Cell]] = [
            [
                "equal" if not bound else "beyond" if bound < 0 else f"up to {percent(bound)}",
                rows,
                "#" * round(_BAR * rows / most),
            ]
            for bound, rows in one["histogram"]
        ]
        screen.table((f"{one['name']}: apart", "rows", ""), lines)


def _row(one: Mapping[str, Any]) -> list[Cell]:
    distance = "" if one["distance"] is None else percent(one["distance"])
    return [one["prediction"], one["row"], distance, *(_text(one[side]) for side in ("primary", "shadow", "inputs"))]


def _text(values: Mapping[str, Any]) -> str:
    told = [f"{name}={_short(value)}" for name, value in list(values.items())[:_MOST_VALUES]]
    return ", ".join(told) + (", ..." if len(values) > _MOST_VALUES else "")


def _short(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{', '.join(_short(one) for one in value[:_MOST_VALUES])}{', ...' if len(value) > _MOST_VALUES else ''}]"
    return str(value)


def _times(times: Mapping[str, Any]) -> str | None:
    known = [f"{name} {value:.3g} ms" for name, value in times.items() if value is not None]
    return ", ".join(known) or None


def percent(part: float | None) -> str | None:
    """Return a share as people write it."""
    return None if part is None else f"{100 * part:.4g} %"
