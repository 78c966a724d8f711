"""Pipelines over tables with strings, gaps, categories, booleans, wide integers and dates answer as in process.

Every way in is tried: the sample as CSV and as JSON, and rows, records and columns of JSON.
"""

import hashlib
import json
import os

import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from fixtures import artifacts, tables
from fixtures.table_models import NOT_COMPILED_OF_TABLES
from modelkeep.client.inputs import encode, rows_in
from modelkeep.contracts.runner import Artifact, CannotCompile, CannotLoad, LoadOptions
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.plugins.runners.onnx import OnnxRunner
from modelkeep.sandbox import loader
from modelkeep.sandbox.agreement import Differs, differing
from modelkeep.serving.codec import tensors_from_json, values_of
from modelkeep.worker.drawn import drawn_rows
from modelkeep.worker.samples import fit, read_sample

pytestmark = pytest.mark.filterwarnings("ignore")

SAMPLE_ROWS = 30
NOT_TRUSTED = {
    "integers as texts": "operator.methodcaller",
    "dates as numbers": "operator.methodcaller",
    "histogram trees": "functools.partial",
    **dict.fromkeys(("hour", "day of the week", "dates with gaps"), "operator.attrgetter"),
}
"""What skops cannot give back without running code that somebody chose, by the type that says so."""


def load(data, form, columns):
    """Load it as a runner does."""
    file = os.memfd_create("artifact")
    try:
        os.write(file, data)
        spec = RunnerSpec("ver_1", hashlib.sha256(data).hexdigest(), len(data), form, "sklearn")
        return loader.load(spec, columns, file)
    finally:
        os.close(file)


def samples(frame):
    """The frame's first rows as people write them: CSV by pandas, records in JSON."""
    first = frame.iloc[:SAMPLE_ROWS]
    return {"CSV": first.to_csv(index=False).encode(), "JSON": encode(rows_in(first))}


def forms(frame):
    """The rows in every form of JSON."""
    columns = json.loads(encode(rows_in(frame)))
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return {"columns": columns, "rows": rows, "records": [dict(zip(columns, row, strict=True)) for row in rows]}


def compiled_of(model):
    """The model as its runner has it, and its compiled form in the runner of that."""
    columns = read_sample(samples(tables.asked(model))["CSV"], "sample", picture=False)
    runner = load(artifacts.as_joblib(model), "joblib", columns.columns)
    signature = runner.facts.signature
    found = runner.compiled()
    compiled = OnnxRunner().load(Artifact(found.data, found.format), LoadOptions(signature=signature))
    return runner, compiled, drawn_rows(signature, fit(columns, signature), found.edges)


def asked_alone(model, rows, at):
    """The answer to one row, or None where it is refused."""
    try:
        return model.run({name: array[at : at + 1] for name, array in rows.items()})
    except (ValueError, InvalidArgument):
        return None


def equal(expected, answer):
    assert list(expected) == list(answer)
    for name, array in expected.items():
        assert json.loads(json.dumps(values_of(answer[name]))) == array.tolist(), name


@pytest.mark.parametrize("name", tables.PIPELINES)
def test_it_answers_as_in_process(name):
    model = tables.PIPELINES[name]()
    frame = tables.asked(model)
    expected = tables.expected(model, frame)
    for sample in samples(frame).values():
        columns = read_sample(sample, "sample", picture=False)
        runner = load(artifacts.as_joblib(model), "joblib", columns.columns)
        signature = runner.facts.signature
        equal({key: array[:SAMPLE_ROWS] for key, array in expected.items()}, runner.run(fit(columns, signature)))
        for inputs in forms(frame).values():
            equal(expected, runner.run(tensors_from_json(signature, json.dumps(inputs).encode())))


@pytest.mark.parametrize("name", tables.PIPELINES)
def test_saved_by_skops_it_answers_the_same_or_names_the_types_that_are_not_trusted(name):
    model = tables.PIPELINES[name]()
    frame = tables.asked(model)
    sample = read_sample(samples(frame)["CSV"], "sample", picture=False)
    data = artifacts.as_skops(model)
    if name in NOT_TRUSTED:
        with pytest.raises(CannotLoad, match=NOT_TRUSTED[name]):
            load(data, "skops", sample.columns)
        return
    runner = load(data, "skops", sample.columns)
    equal(
        {key: array[:SAMPLE_ROWS] for key, array in tables.expected(model, frame).items()},
        runner.run(fit(sample, runner.facts.signature)),
    )


@pytest.mark.parametrize("name", [name for name in tables.PIPELINES if name not in NOT_COMPILED_OF_TABLES])
def test_its_compiled_form_answers_and_refuses_the_same_rows(name):
    runner, compiled, rows = compiled_of(tables.PIPELINES[name]())
    for at in range(0, len(next(iter(rows.values()))), 3):
        wanted, given = asked_alone(runner, rows, at), asked_alone(compiled, rows, at)
        assert (wanted is None) == (given is None), at
        if wanted is not None:
            differing(wanted, given)


@pytest.mark.parametrize("name", NOT_COMPILED_OF_TABLES)
def test_what_is_not_compiled_says_which_step_or_column_is_why(name):
    with pytest.raises((CannotCompile, Differs), match=NOT_COMPILED_OF_TABLES[name]):
        runner, compiled, rows = compiled_of(tables.PIPELINES[name]())
        differing(runner.run(rows), compiled.run(rows))
