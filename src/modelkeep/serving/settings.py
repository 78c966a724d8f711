"""What can be set about serving."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval


@dataclass(frozen=True)
class ServingSettings:
    """The predict path and its door."""

    max_body_mb: Annotated[
        int, "Largest prediction request, in MiB; larger ones are refused with 413.", Interval(ge=1, le=4096)
    ] = 64
    deadline_s: Annotated[
        float, "How long a prediction may take when the caller names no deadline, in seconds.", Interval(ge=0.001, le=86_400)
    ] = 30.0
    max_batch_rows: Annotated[int, "Most rows that are put together into one run of a model.", Interval(ge=1, le=65_536)] = 256
    max_queue: Annotated[
        int, "Most requests that may wait for one version; further ones are refused with 503.", Interval(ge=1, le=1_000_000)
    ] = 1024
    max_staleness_s: Annotated[
        float,
        "How old the last news from the control plane may be, in seconds, before every request is denied.",
        Interval(ge=5, le=604_800),
    ] = 900.0
    golden_check_s: Annotated[
        float,
        "How often each model is asked its golden rows again, besides at every load, in seconds; 0 is never.",
        Interval(ge=0, le=604_800),
    ] = 300.0
    default_model: Annotated[str, "The deployment that answers /predict and /info when the request names none."] = ""
