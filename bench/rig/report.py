"""Tables in Markdown and plots in SVG from the raw figures of a run."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rig.peers import MANNERS, UNBATCHED
from rig.ratios import Ratio, paired

Bursts = Mapping[str, Sequence[Mapping[str, Any]]]
"""What was measured at one level: the bursts of each contestant, in the order of the rounds."""

_CLOSED = (
    "",
    "callers",
    "per second (min-max)",
    "p50 ms",
    "p99 ms",
    "errors",
    "server us/request",
    "server cores",
    "RSS / PSS MB",
)
_OPEN = ("", "offered/s", "good/s", "p50 ms", "p99 ms", "p99.9 ms", "not good", "sent late, p99 ms")


def write(folder: Path, results: Mapping[str, Any]) -> None:
    """Write `tables.md` and a plot for each match into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [_machine(results)]
    for match in results["matches"]:
        plot = folder / f"{match['work']}-{match['mode']}.svg"
        _plot(match, plot)
        parts.append(_match(match))
    (folder / "tables.md").write_text("\n\n".join(parts) + "\n")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [" | ".join(str(cell) for cell in row) for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {line} |" for line in lines)])


def middle(bursts: Sequence[Mapping[str, Any]], name: str) -> float:
    """Return the median of one figure over the bursts; 0 where no burst has it."""
    values = [float(burst[name]) for burst in bursts if name in burst]
    return statistics.median(values) if values else 0.0


def figure(value: float) -> str:
    """Return a number with three digits that mean something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"  # noqa: PLR2004 - digits


def ratio(level: Bursts, ours: str, theirs: str, name: str) -> Ratio | None:
    """Return the paired ratio of one figure, where both were measured."""
    pairs = [(one[name], other[name]) for one, other in zip(level.get(ours, ()), level.get(theirs, ()), strict=True)]
    pairs = [(one, other) for one, other in pairs if one and other]
    return paired([one for one, _other in pairs], [other for _one, other in pairs]) if pairs else None


def _machine(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    load = ", ".join(f"{one:.1f}" for one in machine["load_average"])
    asked = results["asked"]
    lines = (
        f"{machine['cores']} cores ({machine['processor']}), {machine['memory_gb']} GB, Linux {machine['kernel']},",
        f"Python {machine['python']}; load average at the start {load}. {results['priority']}",
        f"Bursts of {asked['seconds']} s in turns, {asked['rounds']} rounds, medians;",
        "ratios are medians of paired ratios with a 95 % interval.",
    )
    return " ".join(lines)


def _match(match: Mapping[str, Any]) -> str:
    parts = [f"## {match['work'].capitalize()}, {match['mode']}"]
    us = next((name for level in match["closed"].values() for name in level if _is_ours(name)), "")
    parts.append(_closed_table(match["closed"], us))
    parts += [text for text in (_verdict(match, us), _open_table(match["open"], us), _bare_table(match, us)) if text]
    parts += [text for text in (_stage_table(match.get("stages", {})), _notes(match)) if text]
    return "\n\n".join(parts)


def _is_peer(name: str) -> bool:
    return name.removesuffix(UNBATCHED) in MANNERS


def _is_ours(name: str) -> bool:
    return not _is_peer(name) and name != "hello world"


def _closed_table(levels: Mapping[str, Bursts], us: str) -> str:
    head = [*_CLOSED, "others' cores", *([f"{us} / this"] if us else [])]
    rows = []
    for callers, level in levels.items():
        for name, bursts in sorted(level.items(), key=lambda item: -middle(item[1], "per_second")):
            rates = [burst["per_second"] for burst in bursts]
            row: list[object] = [
                name,
                callers,
                f"{figure(middle(bursts, 'per_second'))} ({figure(min(rates))}-{figure(max(rates))})",
            ]
            row += [
                figure(middle(bursts, "p50_ms")),
                figure(middle(bursts, "p99_ms")),
                sum(burst["errors"] for burst in bursts),
            ]
            row += [figure(middle(bursts, "server_us_a_request")), figure(middle(bursts, "server_cores"))]
            row += [f"{middle(bursts, 'rss_mb'):.0f} / {middle(bursts, 'pss_mb'):.0f}", figure(middle(bursts, "others_cores"))]
            rows.append([*row, *([ratio(level, us, name, "per_second") if name != us else ""] if us else [])])
    return table(head, rows)


def _verdict(match: Mapping[str, Any], us: str) -> str:
    """Say how we stand against the best peer and the floor, at each number of callers."""
    rows = []
    for callers, level in match["closed"].items():
        theirs = [name for name in level if _is_peer(name)]
        if not us or us not in level:
            continue
        if theirs:
            best = max(theirs, key=lambda name: middle(level[name], "per_second"))
            rows.append((f"rate at {callers}, against the best peer ({best})", ratio(level, us, best, "per_second")))
        if "hello world" in level:
            rows.append((f"rate at {callers}, of hello world's", ratio(level, us, "hello world", "per_second")))
            rows.append((f"p50 at {callers}, of hello world's", ratio(level, us, "hello world", "p50_ms")))
    return table(("What", "Ratio (95 % interval)"), rows) if rows else ""


def _open_table(levels: Mapping[str, Bursts], us: str) -> str:
    rows = []
    for level in levels.values():
        for name, bursts in sorted(level.items(), key=lambda item: middle([one["good"] for one in item[1]], "p99_ms")):
            good = [burst["good"] for burst in bursts]
            bad = sum(count for burst in bursts for code, count in burst["by_status"].items() if code != "200")
            row: list[object] = [name, figure(middle(bursts, "offered_per_second")), figure(middle(bursts, "good_per_second"))]
            row += [figure(middle(good, quantile)) for quantile in ("p50_ms", "p99_ms", "p999_ms")]
            row += [
                bad + sum(burst["unsent"] for burst in bursts),
                figure(middle([one["sent_late"] for one in bursts], "p99_ms")),
            ]
            rows.append(row)
    if not rows:
        return ""
    said = "Open loop, each at 70 % of its own peak; latency counts from when a request was due:"
    del us
    return f"{said}\n\n{table(_OPEN, rows)}"


def _bare_table(match: Mapping[str, Any], us: str) -> str:
    """Say how near pictures come to the loop without a server."""
    rows = []
    for loops in match["bare"].values():
        for name, bursts in loops.items():
            levels = match["closed"]
            row: list[object] = [name, figure(middle(bursts, "per_second")), figure(middle(bursts, "p50_ms"))]
            for callers in levels:
                ours = [burst["per_second"] for burst in levels[callers].get(us, ())]
                rounds = min(len(ours), len(bursts))
                first = list(levels).index(callers) * len(ours)  # the loop ran in every round of every level
                theirs = [burst["per_second"] for burst in bursts[first : first + rounds]]
                row.append(paired(ours[:rounds], theirs) if rounds and len(theirs) == rounds else "")
            rows.append(row)
    if not rows:
        return ""
    return table(("", "pictures/s", "p50 ms", *(f"{us} at {callers} / this" for callers in match["closed"])), rows)


def _stage_table(levels: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    rows = [
        (stage, callers, figure(times["mean_us"]), f"{times['share']:.0%}")
        for callers, stages in levels.items()
        for stage, times in stages.items()
    ]
    return f"Modelkeep's own metrics:\n\n{table(('stage', 'callers', 'mean us', 'share of the total'), rows)}" if rows else ""


def _notes(match: Mapping[str, Any]) -> str:
    lines = [f"- {name} took no part: {' '.join(why.split())[:300]}" for name, why in match["absent"].items()]
    if match["features"]:
        on = ", ".join(name for name, value in match["features"].items() if value)
        off = ", ".join(name for name, value in match["features"].items() if not value)
        lines.append(f"- Modelkeep ran with, as seen from outside: {on}.{f' Not seen: {off}.' if off else ''}")
    return "\n".join(lines)


def _plot(match: Mapping[str, Any], path: Path) -> None:
    """Draw rates at the most callers, and p99 of the open loop, as bars on logarithmic axes."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    top = list(match["closed"].values())[-1]
    panels = [
        (f"requests/s, {list(match['closed'])[-1]} callers", {name: middle(one, "per_second") for name, one in top.items()})
    ]
    for level in match["open"].values():
        p99 = {name: middle([burst["good"] for burst in bursts], "p99_ms") for name, bursts in level.items()}
        panels.append(("p99 ms at 70 % of the own peak, open loop", p99))
    with mpl.rc_context({"svg.hashsalt": "modelkeep", "svg.fonttype": "none", "font.size": 9}):
        drawing, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 0.4 * len(top) + 1.2), squeeze=False)
        for place, (title, values) in zip(axes[0], panels, strict=True):
            shown = sorted(((value, name) for name, value in values.items() if value), key=lambda one: one[0])
            colours = ["#1f6feb" if _is_ours(name) else "#8b949e" for _value, name in shown]
            bars = place.barh([name for _value, name in shown], [value for value, _name in shown], color=colours)
            place.bar_label(bars, [figure(value) for value, _name in shown], padding=3)
            place.set_xscale("log")
            place.margins(x=0.25)
            place.set_title(title)
            place.spines[["top", "right"]].set_visible(False)
        drawing.suptitle(f"{match['work']}, {match['mode']}")
        drawing.tight_layout()
        drawing.savefig(path, metadata={"Date": None})
        plt.close(drawing)
