"""Paired comparison of ways to run Modelkeep; and how it behaves in a crowd, overloaded, and beside uploads and long lists.

A variant (of settings, installations, checkouts) is a name, and what differs: settings by their dotted names, `python=` for the
interpreter of another installation, `checkout=` for another folder of source. All variants run at once on core 0, and bursts go
round them in turn from core 1; what is printed are medians, and ratios to the first variant with their intervals.

    python bench/compare.py closed on off:deployment.recording.enabled=false --callers 64
    python bench/compare.py open before:checkout=../before after --rate 5000
    python bench/compare.py crowd --models 1000 --busy 10 --mode free --rate 500 2000
    python bench/compare.py overload --work pictures --times 10 --deadline 1
    python bench/compare.py beside --mode free --callers 8 --seconds 20
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rig import artifacts, closed_loop, machine, overload, report
from rig.contestants import Contestant, save
from rig.crowd import Crowd
from rig.modelkeep import Modelkeep, Variant, share_of_stages
from rig.paths import RESULTS

_WARM_UP_S = 2
_SHARE = 0.7


class Field:
    """Variants that run side by side, and end with the block."""

    def __init__(self, installations: list[Modelkeep], client_core: int | None) -> None:
        self.installations = installations
        self.contestants = [Contestant(one.server, client_core) for one in installations]

    def __enter__(self) -> "Field":  # noqa: PYI034 - final in all but name
        try:
            for one in self.installations:
                print(f"starting {one.server.name} ...", flush=True)
                one.server.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.installations:
            one.server.stop()

    def turns(self, rounds: int, burst: Callable[[Contestant], dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
        """Return the bursts of each, taken in turns."""
        figures: dict[str, list[dict[str, Any]]] = {one.name: [] for one in self.contestants}
        for turn in range(rounds):
            for one in self.contestants:
                figures[one.name].append(burst(one))
            print(f"round {turn + 1} of {rounds}", flush=True)
        return figures


def closed(asked: argparse.Namespace, field: Field) -> dict[str, Any]:
    """Compare the closed loop; print rates, latencies, processor time a request."""
    before = {one.server.name: one.stages() for one in field.installations}
    figures = field.turns(asked.rounds, lambda one: one.closed(asked.callers, asked.seconds))
    _print(figures, ("per_second", "p50_ms", "p99_ms", "server_us_a_request", "rss_mb", "errors"))
    return {"bursts": figures} | {"stages": {one.server.name: _shares(before, one) for one in field.installations}}


def opened(asked: argparse.Namespace, field: Field) -> dict[str, Any]:
    """Compare the open loop at the same rates for all: those given, or 70 % of the first variant's peak."""
    rates = asked.rate or [_SHARE * field.contestants[0].closed(asked.callers, asked.seconds)["per_second"]]
    return {f"{rate:.0f}": _at(rate, asked, field) for rate in rates}


def _at(rate: float, asked: argparse.Namespace, field: Field) -> dict[str, Any]:
    print(f"at {rate:.0f} a second")
    figures = field.turns(asked.rounds, lambda one: _flat(one.open(rate, asked.seconds)))
    _print(figures, ("good_per_second", "p50_ms", "p99_ms", "p999_ms", "server_us_a_request", "not_good"))
    return {"bursts": figures}


def beside(asked: argparse.Namespace, field: Field) -> dict[str, Any]:
    """Compare predictions by themselves, during uploads of 2 GiB, and during lists of 10,000 predictions."""
    (modelkeep,), (one,) = field.installations, field.contestants
    others = {"upload": modelkeep.uploading(one.client_core), "list": modelkeep.listing(one.client_core)}
    figures: dict[str, list[dict[str, Any]]] = {"quiet": [], **{name: [] for name in others}}
    for turn in range(asked.rounds):
        figures["quiet"].append(one.closed(asked.callers, asked.seconds))
        for name, other in others.items():
            with other:
                figures[name].append(one.closed(asked.callers, asked.seconds))
        print(f"round {turn + 1} of {asked.rounds}", flush=True)
    ended = {name: other.ended for name, other in others.items()}
    print("exit statuses of what went on beside: " + "; ".join(f"{name} {statuses}" for name, statuses in ended.items()))
    _print(figures, ("per_second", "p50_ms", "p99_ms", "p999_ms", "errors"))
    return {"bursts": figures, "ended": ended}


def _shares(before: dict[str, Any], one: Modelkeep) -> dict[str, dict[str, float]]:
    return share_of_stages(before[one.server.name], one.stages())


def _flat(burst: dict[str, Any]) -> dict[str, Any]:
    bad = sum(count for code, count in burst["by_status"].items() if code != "200") + burst["unsent"]
    return burst | burst["good"] | {"not_good": bad}


def _print(figures: dict[str, list[dict[str, Any]]], names: tuple[str, ...]) -> None:
    first = next(iter(figures))
    rows = []
    for name, bursts in figures.items():
        for what in names:
            ratio = report.ratio(figures, name, first, what) if name != first else ""
            rows.append((what, name, report.figure(report.middle(bursts, what)), "" if ratio is None else ratio))
    rows.sort(key=lambda row: names.index(row[0]))
    print("\n" + report.table(("", "variant", "median", f"ratio to {first} (95 % interval)"), rows))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("closed", "open", "crowd", "overload", "beside"))
    parser.add_argument("variants", nargs="*", type=Variant.parse, metavar="NAME[:SETTING=VALUE,...]")
    parser.add_argument("--work", choices=(artifacts.ROWS, artifacts.PICTURES), default=artifacts.ROWS)
    parser.add_argument("--mode", choices=("pinned", "free"), default="pinned")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2, help="length of a burst")
    parser.add_argument("--callers", type=int, default=64, help="of the closed loop")
    parser.add_argument(
        "--rate", type=float, nargs="+", help="requests a second of the open loop, one after another, for all variants"
    )
    parser.add_argument("--models", type=int, default=1000, help="crowd: how many models are registered")
    parser.add_argument("--loaded", type=int, default=0, help="crowd: how many of them have a version; 0: all")
    parser.add_argument("--busy", type=int, default=10, help="crowd: how many are asked")
    parser.add_argument("--times", type=float, default=10.0, help="overload: offered load in peaks")
    parser.add_argument("--deadline", type=float, default=1.0, help="overload: what callers wait at most, in seconds")
    parser.add_argument("--to", type=Path, help="folder for the results")
    asked = parser.parse_args()
    if not asked.variants:
        asked.variants = [Variant("modelkeep")]
    if asked.what == "beside" and len(asked.variants) > 1:
        parser.error("beside takes one variant")
    names = [variant.name for variant in asked.variants]
    if len(set(names)) < len(names):
        parser.error("two variants have the same name")
    return asked


def main() -> None:
    """Run one comparison, print it, and keep the raw figures."""
    asked = _parse()
    closed_loop.available()
    machine.end_in_order()
    priority = machine.come_first()
    print(priority)
    core = machine.SERVER_CORE if asked.mode == "pinned" else None
    client_core = machine.CLIENT_CORE if asked.mode == "pinned" else None
    installations = [Modelkeep(asked.work, variant, core=core) for variant in asked.variants]
    if asked.what == "crowd":
        alone = asked.variants[0]
        few = Crowd(alone.named("busy only"), asked.busy, asked.busy, asked.busy, core=core)
        crowd = Crowd(alone.named("crowd"), asked.models, asked.loaded or asked.models, asked.busy, core=core)
        installations = [Modelkeep(artifacts.ROWS, alone.named("alone"), core=core), few, crowd]
    with Field(installations, client_core) as field:
        for one in field.contestants:
            one.closed(asked.callers, _WARM_UP_S)
        match asked.what:
            case "closed":
                figures = closed(asked, field)
            case "beside":
                figures = beside(asked, field)
            case "overload":
                figures = {
                    name.server.name: overload.run(name, one, asked)
                    for name, one in zip(field.installations, field.contestants, strict=True)
                }
            case _:
                figures = opened(asked, field)
    to = (asked.to or RESULTS / time.strftime(f"{asked.what}-%Y%m%d-%H%M%S")) / "raw.json"
    save(to, {"machine": machine.describe(), "priority": priority, "asked": vars(asked), "figures": figures})
    print(f"\nRaw figures: {to}")


if __name__ == "__main__":
    main()
