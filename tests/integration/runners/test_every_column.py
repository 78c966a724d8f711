"""Pipelines over tables with strings, gaps, categories, booleans, wide integers and dates answer as in process.

Every way in is tried: the sample as CSV and as JSON, and rows, records and columns of JSON.
"""

import hashlib
import json
import os

import pytest

from fixtures import artifacts, tables
from modelkeep.client.inputs import encode, rows_in
from modelkeep.contracts.runner import CannotLoad
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox import loader
from modelkeep.serving.codec import tensors_from_json, values_of
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
