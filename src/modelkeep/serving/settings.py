"""What can be set about serving."""

import re
from dataclasses import dataclass
from typing import Annotated, Final

from annotated_types import Interval, Predicate

from modelkeep.contracts.secret import NO_SECRET, Secret
from modelkeep.infra.settings import names_redis

_PAIR: Final = 2
NATIVE_PREDICT: Final = "/predict"
NATIVE_HEALTH: Final = "/health"
_OURS: Final = re.compile(
    r"/(?:api|v1/models|v2|predict|info|health|healthz|readyz|metrics|invocations|ping|version|endpoints|serving-endpoints|docs|"
    r"redoc|openapi\.json|console|assets|static)(?:[/:].*)?"
)
_PATH: Final = re.compile(r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~:@-]+)+", re.ASCII)


def _predict_route(path: str) -> bool:
    """empty, /predict, or a path such as /v1/endpoints/1:predict under which nothing of Modelkeep's own lies"""  # noqa: D415 - part of a sentence
    return path in {"", NATIVE_PREDICT} or _free(path)


def _health_route(path: str) -> bool:
    """empty, /health, or a path such as /v1/endpoints/1 under which nothing of Modelkeep's own lies"""  # noqa: D415 - part of a sentence
    return path in {"", NATIVE_HEALTH} or _free(path)


def _free(path: str) -> bool:
    return _PATH.fullmatch(path) is not None and _OURS.fullmatch(path) is None


def _names_hosts(text: str) -> bool:
    """pairs like churn.example.org=churn with commas between them, or empty"""  # noqa: D403, D415 - part of a sentence
    return not text or all(len([part for part in pair.split("=") if part.strip()]) == _PAIR for pair in text.split(","))


@dataclass(frozen=True)
class Callers:
    """How slow callers may be, and how many: see `server.headers_s` and those after it."""

    headers_s: float = 10.0
    body_rate: int = 1024
    idle_s: float = 75.0
    most: int = 8192


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
    cache_mb: Annotated[
        int,
        "Most memory in which one server keeps answers, to give them again to equal requests, in MiB; 0 for none.",
        Interval(ge=0, le=1_048_576),
    ] = 64
    cache_redis_url: Annotated[
        Secret,
        "Redis server by which the servers of an installation share answers of slow models: redis://:PASSWORD@HOST:6379/0, or "
        "rediss:// over TLS; empty for none.",
        Predicate(names_redis),
    ] = NO_SECRET
    golden_check_s: Annotated[
        float,
        "How often each model is asked its golden rows again, besides at every load, in seconds; 0 is never.",
        Interval(ge=0, le=604_800),
    ] = 300.0
    default_model: Annotated[
        str,
        "The deployment that answers /predict, /info, /invocations and /ping when neither the request nor its host names one.",
    ] = ""
    hosts: Annotated[
        str,
        "Deployments by the host name that a request is sent to, for the same paths: churn.example.org=churn, with commas.",
        Predicate(_names_hosts),
    ] = ""
    predict_route: Annotated[
        str,
        "Path on which Vertex AI asks for predictions; where nothing else is set, its own variable AIP_PREDICT_ROUTE says it.",
        Predicate(_predict_route),
    ] = ""
    health_route: Annotated[
        str,
        "Path on which Vertex AI asks for readiness; where nothing else is set, its own variable AIP_HEALTH_ROUTE says it.",
        Predicate(_health_route),
    ] = ""
    stand_in_key_file: Annotated[
        str,
        "File with the API key that stands for callers who bring none, on the prediction routes of container platforms "
        "(`serving.predict_route`, SageMaker's /invocations) and nowhere else; empty for none.",
    ] = ""

    def __post_init__(self) -> None:
        """Hide an address that is given as a text."""
        if isinstance(self.cache_redis_url, str):
            object.__setattr__(self, "cache_redis_url", Secret(self.cache_redis_url))

    @property
    def deployments_by_host(self) -> dict[str, str]:
        """The deployments of `hosts`."""
        pairs = (pair.partition("=")[::2] for pair in self.hosts.split(",") if pair)
        return {host.strip(): name.strip() for host, name in pairs}
