"""Decodes, prepares and runs pictures in this one process, for so many seconds whenever a line with a number comes in.

`--recipe pillow` prepares as the peers' servers do, `--recipe modelkeep` with the code of Modelkeep's own runners. Each line
of output is JSON. Used by the bench as the limit of what a server of pictures can reach.
"""

import argparse
import json
import sys
import time

import numpy as np

from rig import artifacts, recipes


def main() -> None:
    """Load, say so, and measure as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=("pillow", "modelkeep"), default="pillow")
    asked = parser.parse_args()
    served = artifacts.as_peers_run_it(artifacts.PICTURES)
    prepare, network = recipes.preparing(asked.recipe, served), served.network()
    pictures = [question.picture for question in artifacts.questions(artifacts.PICTURES)]
    for picture in pictures:
        served.top5(network(prepare(picture)))
    print(json.dumps({"loaded": True}), flush=True)
    for line in sys.stdin:
        took: list[float] = []
        started = last = time.perf_counter()
        while last - started < float(line):
            served.top5(network(prepare(pictures[len(took) % len(pictures)])))
            now = time.perf_counter()
            took.append(now - last)
            last = now
        p50, p99 = np.quantile(took, [0.5, 0.99]) * 1000
        print(json.dumps({"per_second": len(took) / (last - started), "p50_ms": p50, "p99_ms": p99}), flush=True)


if __name__ == "__main__":
    main()
