"""What the Open Inference Protocol says about server and models: metadata, configuration, statistics, repository index.

All of it as plain structs, named as the protocol names them; REST writes them as JSON, gRPC as messages. Sources:
github.com/kserve/open-inference-protocol, and docs/protocol of github.com/triton-inference-server/server, from which the
extensions are.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Final

import msgspec

from modelkeep.contracts.signature import DATETIME, Dtype, TensorSpec
from modelkeep.contracts.snapshot import ServedVersion
from modelkeep.serving.pool import Served
from modelkeep.serving.statistics import Statistics, Sum
from modelkeep.serving.view import View

EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)
_AT_ONCE: Final = 32
_CONFIG_TYPES: Final = {Dtype.BYTES: "TYPE_STRING"}


class ServerMetadata(msgspec.Struct, frozen=True):
    """The server."""

    name: str
    version: str
    extensions: tuple[str, ...]


class TensorMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """An input or output. What the protocol has no word for are parameters: a date's content type is MLServer's."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, object] = {}


class ModelMetadata(msgspec.Struct, frozen=True):
    """A model: the versions that can be asked, and what goes in and comes out of the one described."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class Reshape(msgspec.Struct, frozen=True):
    """The shape that a tensor has in truth, where a configuration cannot say it."""

    shape: tuple[int, ...]


class TensorConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """An input or output in a model's configuration: `dims` without the batch axis; one value a row is [1], reshaped."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    reshape: Reshape | None = None


class VersionPolicy(msgspec.Struct, frozen=True):
    """Which versions answer: the promoted one, and those that aliases point to."""

    specific: dict[str, tuple[int, ...]]


class ModelConfig(msgspec.Struct, frozen=True):
    """A model's configuration, as far as a client can use it. `max_batch_size` is the most rows that share a run."""

    name: str
    platform: str
    backend: str
    version_policy: VersionPolicy
    max_batch_size: int
    input: tuple[TensorConfig, ...]
    output: tuple[TensorConfig, ...]


class Duration(msgspec.Struct, frozen=True):
    """How often something was done, and how long that took in all, in nanoseconds."""

    count: int = 0
    ns: int = 0


class InferenceStatistics(msgspec.Struct, frozen=True):
    """Requests, and where their time went. What the model did is said of those alone whose answer was not found in the cache.

    `cache_hit`: answered with what the model had said to an equal one; `cache_miss`: looked for in vain, keeping included.
    """

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class ModelStatistics(msgspec.Struct, frozen=True):
    """A version's counts, of all servers of the installation since its counters were begun.

    `inference_count` counts rows, `execution_count` runs of the model. `last_inference` is milliseconds of Unix time, 0 for
    none since the server started.
    """

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    batch_stats: tuple[dict[str, object], ...] = ()


class RepositoryModel(msgspec.Struct, frozen=True):
    """A version in the repository: READY, LOADING or UNAVAILABLE, and why."""

    name: str
    version: str
    state: str
    reason: str


def server(version: str) -> ServerMetadata:
    """Return the metadata of this server."""
    return ServerMetadata("modelkeep", version, EXTENSIONS)


def metadata(view: View, name: str, asked: str | None = None) -> ModelMetadata:
    """Return the metadata of the version asked for, or of the promoted one, under its deployment's name; raises `NotFound`."""
    version = view.find(name, asked).served.version
    return ModelMetadata(
        name,
        tuple(str(one.version.number) for one in view.serving(name)),
        _platform(version),
        tuple(_tensor(spec) for spec in version.signature.inputs),
        tuple(_tensor(spec) for spec in version.signature.outputs),
    )


def config(view: View, name: str, asked: str | None = None) -> ModelConfig:
    """Return the configuration of the version asked for, or of the promoted one; raises `NotFound`."""
    served = view.find(name, asked).served
    version = served.version
    return ModelConfig(
        name,
        _platform(version),
        version.spec.runner,
        VersionPolicy({"versions": tuple(one.version.number for one in view.serving(name))}),
        served.plan.max_rows,
        tuple(_config(spec) for spec in version.signature.inputs),
        tuple(_config(spec) for spec in version.signature.outputs),
    )


async def statistics(
    view: View, counted: Statistics, name: str | None = None, version: str | None = None
) -> AsyncIterator[ModelStatistics]:
    """Yield the statistics of the versions that answer for a deployment, or for all of them; raises `NotFound`.

    The event loop goes on between some and some: there may be thousands.
    """
    if name is None:
        found = [(one, served) for one in sorted(view.routes()) for served in view.serving(one)]
    elif version is None:
        view.find(name)
        found = [(name, served) for served in view.serving(name)]
    else:
        found = [(name, view.find(name, version).served)]
    versions = [(one, str(served.version.number)) for one, served in found]
    for at in range(0, len(versions), _AT_ONCE):
        some = versions[at : at + _AT_ONCE]
        for whose, sums in zip(some, counted.of(some), strict=True):
            yield _statistics(*whose, sums)
        await asyncio.sleep(0)


def repository(view: View, *, ready: bool = False) -> list[RepositoryModel]:
    """Return a row for each version that answers or is to answer; with `ready`, those alone that do."""
    return [one for one in _rows(view) if one.state == "READY" or not ready]


def _rows(view: View) -> Iterator[RepositoryModel]:
    routes = view.routes()
    for deployment in view.deployments():
        name, coming = deployment.name, view.pool.get(deployment.version_id)
        present = view.serving(name) if name in routes else []
        for served in (*present, *(() if coming is None or coming in present else (coming,))):
            yield _row(name, served)


def _row(name: str, served: Served) -> RepositoryModel:
    number = str(served.version.number)
    if served.answers:
        return RepositoryModel(name, number, "READY", "")
    if served.failing:
        return RepositoryModel(name, number, "UNAVAILABLE", served.failing)
    return RepositoryModel(name, number, "LOADING", "")


def _platform(version: ServedVersion) -> str:
    return f"{version.framework}_{version.spec.format}" if version.framework else version.spec.format


def _tensor(spec: TensorSpec) -> TensorMetadata:
    parameters: dict[str, object] = {}
    if spec.kind == DATETIME:  # the one that MLServer knows
        parameters["content_type"] = spec.kind
    if spec.nullable:
        parameters["nullable"] = True
    if spec.categories:
        parameters["categories"] = list(spec.categories)
    return TensorMetadata(spec.name, spec.dtype.value, spec.shape, parameters)


def _config(spec: TensorSpec) -> TensorConfig:
    kind = _CONFIG_TYPES.get(spec.dtype, f"TYPE_{spec.dtype.value}")
    if len(spec.shape) == 1:
        return TensorConfig(spec.name, kind, (1,), Reshape(()))
    return TensorConfig(spec.name, kind, spec.shape[1:])


def _statistics(name: str, version: str, sums: Sum) -> ModelStatistics:
    def took(count: float, seconds: float) -> Duration:
        return Duration(int(count), int(seconds * 1e9))

    run, stages_s = sums.answered - sums.hits, sums.queue_s + sums.preprocess_s + sums.run_s + sums.hit_s
    stages = InferenceStatistics(
        success=took(sums.answered, sums.total_s),
        fail=took(sums.failed, sums.failed_s),
        queue=took(sums.answered, sums.queue_s),
        compute_input=took(run, sums.preprocess_s),
        compute_infer=took(run, sums.run_s),
        compute_output=took(run, max(0.0, sums.total_s - stages_s)),
        cache_hit=took(sums.hits, sums.hit_s),
        cache_miss=took(sums.misses, sums.miss_s),
    )
    return ModelStatistics(name, version, int(sums.last * 1000), int(sums.rows), int(sums.runs), stages)
