"""Modelkeep, its peers and the floor side by side: bursts in turns, medians, and intervals of the paired ratios.

All servers run at once, and the load goes round them in turn, so that a machine which is faster now and slower then is so
for all of them. `pinned`: each server with all its processes on core 0, the load generator on core 1. `free`: nobody pinned,
a model process for each core. First the closed loop at each number of callers, then the open loop at 70 % of each
server's own peak. Nothing here speaks to anything but this machine.

    make bench-peers                                    (or PEERS="mosec fastapi" make bench-peers)
    python bench/side_by_side.py --peers mosec fastapi --work rows --mode pinned --rounds 5 --seconds 2
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from rig import artifacts, closed_loop, environments, machine, peers, report
from rig.calls import WrongAnswer
from rig.contestants import BareLoop, Contestant, save
from rig.modelkeep import Modelkeep, Variant, share_of_stages
from rig.paths import RESULTS
from rig.servers import DidNotStart, Server

LEVELS = {artifacts.ROWS: (1, 16, 64), artifacts.PICTURES: (1, 8)}
LONGER = {artifacts.ROWS: 1, artifacts.PICTURES: 2}
"""How many times longer bursts are: eight pictures in one batch take a second on a busy core."""

OPEN_SHARE = 0.7
WARM_UP_S = 2


class Match:
    """One kind of work in one mode: everybody started, everybody measured in turns, everybody ended."""

    def __init__(self, work: str, mode: str, names: Sequence[str], variant: Variant) -> None:
        self.work = work
        self.mode = mode
        self.absent: dict[str, str] = {}
        self.contestants: list[Contestant] = []
        self.loops: list[BareLoop] = []
        self.figures: dict[str, Any] = {"closed": {}, "open": {}, "bare": {}}
        pinned = mode == "pinned"
        self._core = machine.SERVER_CORE if pinned else None
        self._client_core = machine.CLIENT_CORE if pinned else None
        self._workers = 1 if pinned else os.cpu_count() or 1
        self._names = names
        self.modelkeep = Modelkeep(work, variant, core=self._core)

    def __enter__(self) -> Self:
        try:
            self._enter(self.modelkeep.server)
            if self.work == artifacts.ROWS and self.contestants:
                floor = peers.hello(self.modelkeep.server.asking, workers=self._workers, core=self._core)
                self._enter(floor)
            if self.work == artifacts.PICTURES and self.mode == "pinned":
                for recipe in ("modelkeep", "pillow"):
                    loop = BareLoop(recipe, self._core)
                    self.loops.append(loop)
                    loop.start()
            for name in self._names:
                try:
                    server = peers.peer(name, self.work, workers=self._workers, core=self._core)
                except environments.NotInstalled as error:
                    self._miss(name, f"not installed: {error}")
                else:
                    self._enter(server)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.contestants:
            one.server.stop()
        for loop in self.loops:
            loop.stop()

    def warm_up(self) -> None:
        """One burst each at the most callers, which counts for nothing."""
        for one in self.contestants:
            one.closed(LEVELS[self.work][-1], WARM_UP_S)

    def closed(self, callers: int, rounds: int, seconds: int) -> None:
        """Measure the closed loop: every round asks everyone."""
        before = self.modelkeep.stages() if self._has_modelkeep else {}
        for turn in range(rounds):
            for one in self.contestants:
                self._note("closed", str(callers), one.name, one.closed(callers, seconds))
            for loop in self.loops:
                self._note("bare", "1", loop.name, loop.burst(seconds))
            print(f"  {self.work}, {self.mode}, {callers} callers: round {turn + 1} of {rounds}", flush=True)
        if self._has_modelkeep:
            shares = share_of_stages(before, self.modelkeep.stages())
            self.figures.setdefault("stages", {})[str(callers)] = shares

    def open(self, rounds: int, seconds: int) -> None:
        """Measure the open loop, each at a share of its own peak."""
        peaks = self.figures["closed"][str(LEVELS[self.work][-1])]
        for turn in range(rounds):
            for one in self.contestants:
                rate = OPEN_SHARE * statistics.median(burst["per_second"] for burst in peaks[one.name])
                self._note("open", str(OPEN_SHARE), one.name, one.open(rate, seconds))
            print(f"  {self.work}, {self.mode}, open loop: round {turn + 1} of {rounds}", flush=True)

    def results(self) -> dict[str, Any]:
        """Return everything, for the file."""
        return {
            "work": self.work,
            "mode": self.mode,
            "absent": self.absent,
            "start_s": {one.name: one.server.start_s for one in self.contestants},
            "features": self.modelkeep.features() if self._has_modelkeep else {},
            **self.figures,
        }

    @property
    def _has_modelkeep(self) -> bool:
        return any(one.server is self.modelkeep.server for one in self.contestants)

    def _enter(self, server: Server) -> None:
        print(f"  starting {server.name} ...", flush=True)
        try:
            server.start()
        except (DidNotStart, WrongAnswer, OSError, RuntimeError) as error:
            server.stop()
            self._miss(server.name, str(error))
        else:
            self.contestants.append(Contestant(server, self._client_core))

    def _miss(self, name: str, why: str) -> None:
        print(f"  {name} takes no part: {why}", flush=True)
        self.absent[name] = why

    def _note(self, kind: str, level: str, name: str, burst: dict[str, Any]) -> None:
        self.figures[kind].setdefault(level, {}).setdefault(name, []).append(burst)


def main() -> None:
    """Measure all that is asked for; write raw figures, tables and plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peers", nargs="*", default=list(peers.DEFAULT), metavar="NAME", help=f"of {', '.join(peers.MANNERS)}"
    )
    parser.add_argument("--work", nargs="+", choices=tuple(LEVELS), default=list(LEVELS))
    parser.add_argument("--mode", nargs="+", choices=("pinned", "free"), default=["pinned", "free"])
    parser.add_argument("--rounds", type=int, default=5, help="bursts of each at each level, in turns")
    parser.add_argument("--seconds", type=int, default=2, help="length of a burst")
    parser.add_argument("--open-seconds", type=int, default=4, help="length of a burst of the open loop; 0 leaves it out")
    parser.add_argument("--levels", type=int, nargs="*", help="numbers of callers, instead of 1 16 64 and 1 8")
    parser.add_argument("--modelkeep", type=Variant.parse, default=Variant("modelkeep"), metavar="NAME:SETTING=VALUE,...")
    parser.add_argument("--free", default="", metavar="SETTING=VALUE,...", help="further settings of Modelkeep when it is free")
    parser.add_argument("--to", type=Path, help="folder for the results")
    asked = parser.parse_args()
    unknown = [name for name in asked.peers if name.removesuffix(peers.UNBATCHED) not in peers.MANNERS]
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(peers.MANNERS)}")
    try:
        closed_loop.available()
    except closed_loop.NoLoadGenerator as error:
        parser.exit(2, f"{error}\n")
    folder = asked.to or RESULTS / time.strftime("peers-%Y%m%d-%H%M%S")
    machine.end_in_order()
    priority = machine.come_first()
    print(priority)
    results: dict[str, Any] = {"machine": machine.describe(), "priority": priority, "asked": vars(asked), "matches": []}
    for work in asked.work:
        for mode in asked.mode:
            variant = asked.modelkeep
            if mode == "free" and asked.free:
                variant = Variant.parse(f"{variant.name}:{asked.free}").over(variant)
            with Match(work, mode, asked.peers, variant) as match:
                if asked.levels:
                    LEVELS[work] = tuple(asked.levels)
                match.warm_up()
                for callers in LEVELS[work]:
                    match.closed(callers, asked.rounds, asked.seconds * LONGER[work])
                if asked.open_seconds:
                    match.open(asked.rounds, asked.open_seconds * LONGER[work])
                results["matches"].append(match.results())
            save(folder / "raw.json", results)
            report.write(folder, results)
    print((folder / "tables.md").read_text())
    print(f"Raw figures, tables and plots: {folder}")


if __name__ == "__main__":
    main()
