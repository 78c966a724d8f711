"""What can be set about the worker."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval, MinLen


@dataclass(frozen=True)
class WorkerSettings:
    """Jobs: how many at once, how often they are tried, and how their worker is told from others."""

    name: Annotated[
        str, "This worker's name, the same after every restart and different from every other worker's.", MinLen(1)
    ] = "worker"
    jobs: Annotated[int, "Most jobs that are worked on at once.", Interval(ge=1, le=256)] = 2
    attempts: Annotated[int, "How often a job is begun before it is given up.", Interval(ge=1, le=100)] = 5
    poll_s: Annotated[float, "How often to look for jobs that no bell announced, in seconds.", Interval(ge=0.05, le=3600)] = 0.5
    lease_s: Annotated[
        float, "After how many silent seconds a worker counts as dead and others take over its jobs.", Interval(ge=1, le=3600)
    ] = 30.0
    quiet_start_s: Annotated[
        float,
        "How long the job engine waits for a first job before it is loaded, in seconds, so that a start stays quick.",
        Interval(ge=0, le=3600),
    ] = 3.0
