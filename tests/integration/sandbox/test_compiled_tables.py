"""Pipelines over tables are compiled in real runners, and the compiled form is the same model; or the reason names what stands
in the way. Which are compiled is asserted: none is lost without a failing test."""

import msgspec
import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from fixtures import artifacts, table_models, tables
from fixtures.inspection import accepted
from modelkeep.sandbox import frames
from modelkeep.sandbox.agreement import differing
from modelkeep.worker.samples import fit, read_sample

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.filterwarnings("ignore")]

MORE_ROWS = 60


@pytest.fixture
def inspect(inspect_and_compile):
    return inspect_and_compile


def asked(model):
    """Rows with the columns that the model was fitted on."""
    return tables.asked(model)


async def both(warm_bench, data, found, rows):
    """Run rows through the original and the compiled form, each in a runner of its own."""
    spec = warm_bench.spec(data, "joblib", signature=found.signature)
    compiled = msgspec.structs.replace(spec, **msgspec.structs.asdict(found.compiled))
    answers = []
    for one in (spec, compiled):
        async with warm_bench.start(one) as session:
            await session.load()
            answers.append(await session.run(**rows))
    return answers


@pytest.mark.parametrize("name", table_models.COMPILED)
async def test_a_table_is_compiled_and_agrees_on_rows_of_every_kind(inspect, warm_bench, name):
    model = table_models.COMPILED[name]()
    frame = asked(model)
    data = artifacts.as_joblib(model)
    found = await accepted(inspect, data, "joblib", frame.to_csv(index=False).encode())
    compilation = found.report.compiled
    assert compilation.used, compilation.reason
    assert found.compiled.runner == "onnx"
    assert compilation.rows_compared >= 256 + len(frame)
    more = table_models.random_rows(frame, MORE_ROWS, 1).to_csv(index=False).encode()
    rows = fit(read_sample(more, "more.csv", picture=False), found.signature)
    (_, wanted), (_, given) = await both(warm_bench, data, found, rows)
    differing(wanted, given)
    assert [one.name for one in found.signature.outputs] == list(given)


@pytest.mark.parametrize("name", table_models.NOT_COMPILED)
async def test_what_is_not_compiled_says_which_step_or_column_is_why(inspect, name):
    make, reason = table_models.NOT_COMPILED[name]
    model = make()
    found = await accepted(inspect, artifacts.as_joblib(model), "joblib", asked(model).to_csv(index=False).encode())
    assert not found.report.compiled.used
    assert found.compiled is None
    assert reason in found.report.compiled.reason


async def test_a_row_that_the_model_refuses_is_refused_by_the_compiled_form(inspect, warm_bench):
    encode = make_column_transformer((OneHotEncoder(), ["city"]), ("passthrough", ["age"]))
    model = make_pipeline(encode, LogisticRegression()).fit(tables.TABLE[["city", "age"]], tables.LABEL)
    data = artifacts.as_joblib(model)
    found = await accepted(inspect, data, "joblib", tables.ASKED[["city", "age"]].to_csv(index=False).encode())
    assert found.report.compiled.used, found.report.compiled.reason
    row = {"city": np.array(["Atlantis"], dtype=object), "age": np.array([40.0])}
    answers = await both(warm_bench, data, found, row)
    assert [message.code for message, _ in answers] == ["refused", "refused"]
    assert all(isinstance(message, frames.RunFailed) for message, _ in answers)
    assert "'city'" in answers[1][0].detail


async def test_an_output_that_is_called_as_a_column_leaves_the_original_in_use(inspect):
    frame = tables.TABLE[["city", "age"]].rename(columns={"age": "label"})
    encode = make_column_transformer((OneHotEncoder(), ["city"]), ("passthrough", ["label"]))
    model = make_pipeline(encode, LogisticRegression()).fit(frame, tables.LABEL)
    found = await accepted(inspect, artifacts.as_joblib(model), "joblib", frame.to_csv(index=False).encode())
    assert found.report.compiled.reason == "The column 'label' is called as something in the graph is."
