"""Draws the evidence of a rollout as an SVG that needs nothing else: one panel a signal, time to the right.

In each panel the evidence that the version is worse rises towards the upper line, where it is taken back, and the evidence
that it is not worse towards its own. All in powers of ten; steps begin at the thin lines.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any, Final

_WIDTH: Final = 860
_PANEL: Final = 190
_LEFT: Final = 64
_RIGHT: Final = 150
_TOP: Final = 54
_GAP: Final = 46
_TEN: Final = math.log(10.0)
_LOWEST: Final = -3.0
_OF_SHADOWS: Final = "disagreement"
_STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-size:15px;font-weight:600}.quiet{fill:#57606a}"
    ".axis{stroke:#8c959f;fill:none}.step{stroke:#d0d7de}.worse{stroke:#c0392b;fill:none;stroke-width:2}"
    ".good{stroke:#1f7a4d;fill:none;stroke-width:2}.limit{stroke-dasharray:5 4;stroke-width:1.2;fill:none}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9198a1}svg{background:#0d1117}.step{stroke:#30363d}}"
)


def svg(title: str, evidence: Mapping[str, Any]) -> str:
    """Return the drawing of what the API tells of a rollout's evidence."""
    points: Sequence[Mapping[str, Any]] = evidence["points"]
    signals = sorted({signal for point in points for signal in point["signals"]})
    height = _TOP + max(1, len(signals)) * (_PANEL + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="title" x="{_LEFT}" y="24">{escape(title)}</text>',
    ]
    if not points:
        parts.append(f'<text x="{_LEFT}" y="{_TOP}">Nothing has been counted yet.</text>')
    times = _seconds(points)
    for place, signal in enumerate(signals):
        parts += _panel(signal, _TOP + place * (_PANEL + _GAP), points, times, evidence)
    return "\n".join([*parts, "</svg>", ""])


def _panel(
    signal: str, top: int, points: Sequence[Mapping[str, Any]], times: Sequence[float], evidence: Mapping[str, Any]
) -> list[str]:
    known = [(at, point["signals"][signal]) for at, point in zip(times, points, strict=True) if signal in point["signals"]]
    needs, needs_good = evidence["needs"] / _TEN, evidence["needs_not_worse"] / _TEN
    highest: float = max(needs, needs_good, *(max(one["log_e"], one["log_not_worse"]) / _TEN for _at, one in known)) * 1.08
    longest = max(times[-1], 1.0)

    def across(at: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * at / longest

    def up(power: float) -> float:
        return top + _PANEL * (1 - (max(power, _LOWEST) - _LOWEST) / (highest - _LOWEST))

    right = _WIDTH - _RIGHT
    begins = [
        (at, point["step"]) for at, point, before in zip(times[1:], points[1:], points, strict=False) if _other(point, before)
    ]
    lines = [
        f'<line class="step" x1="{across(at):.1f}" x2="{across(at):.1f}" y1="{top}" y2="{top + _PANEL}"/>' for at, _n in begins
    ]
    lines += [f'<text class="quiet" x="{across(at) + 3:.1f}" y="{top + _PANEL - 5}">step {step}</text>' for at, step in begins]
    for name, power, words in (("worse", needs, "taken back"), ("good", needs_good, "shown not worse")):
        lines.append(f'<line class="{name} limit" x1="{_LEFT}" x2="{right}" y1="{up(power):.1f}" y2="{up(power):.1f}"/>')
        lines.append(f'<text x="{right + 6}" y="{up(power) + 4:.1f}">{words}</text>')
    for name, field in (("worse", "log_e"), ("good", "log_not_worse")):
        path = " ".join(f"{across(at):.1f},{up(one[field] / _TEN):.1f}" for at, one in known)
        lines.append(f'<polyline class="{name}" points="{path}"/>')
    last = known[-1][1]
    counts = f"{last['bad']} of {last['requests']} bad, {last['others_bad']} of {last['others']} of the other version's"
    if signal == _OF_SHADOWS:
        counts = f"{last['bad']} of {last['requests']} in the shadow answered otherwise or not at all"
    told = f'<tspan class="quiet">{escape(counts)}; at most {last["upper"]:.2%}</tspan>'
    return [
        f'<text x="{_LEFT}" y="{top - 8}"><tspan font-weight="600">{escape(signal)}</tspan> {told}</text>',
        f'<path class="axis" d="M{_LEFT} {top}V{top + _PANEL}H{right}"/>',
        *(
            f'<text class="quiet" text-anchor="end" x="{_LEFT - 6}" y="{up(power) + 4:.1f}">{_power(power)}</text>'
            for power in range(int(_LOWEST), math.floor(highest) + 1, max(1, math.ceil(highest / 6)))
        ),
        *lines,
        f'<text class="quiet" text-anchor="end" x="{right}" y="{top + _PANEL + 16}">{_span(longest)}</text>',
    ]


def _other(point: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    return bool(point["step"] != before["step"])


def _seconds(points: Sequence[Mapping[str, Any]]) -> list[float]:
    at = [datetime.fromisoformat(point["at"]).timestamp() for point in points]
    return [one - at[0] for one in at]


def _power(power: int) -> str:
    return f"{10.0**power:g}" if abs(power) <= 4 else f"1e{power}"  # noqa: PLR2004 - what is read at a glance


def _span(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"after {hours} h {minutes} min" if hours else f"after {seconds:.0f} s" if seconds < 120 else f"after {minutes} min"  # noqa: PLR2004 - two minutes
