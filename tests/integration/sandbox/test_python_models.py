"""Python classes in real runners: what they bring, what they answer, and what is said of those that cannot."""

import importlib.util
import json
import sys
import zipfile
from io import BytesIO
from textwrap import dedent

import numpy as np
import pytest

from fixtures import python_models
from fixtures.inspection import accepted, refused
from fixtures.python_models import archive, wheel
from fixtures.python_runs import answers, failure
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Column
from modelkeep.contracts.signature import Dtype, TensorSpec
from modelkeep.contracts.snapshot import Limits
from modelkeep.sandbox.frames import Loaded, RunFailed

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCORES = """
import json
import numpy as np
from pathlib import Path
from sizes.tables import weights

class Scorer:
    signature = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 2], "columns": ["a", "b"]},
            {"name": "name", "datatype": "BYTES"},
        ],
        "outputs": [{"name": "scores", "datatype": "FP64", "shape": [-1, 2], "classes": ["no", "yes"]}],
    }

    def load(self, path):
        self.bias = json.loads(Path(path, "data", "bias.json").read_text())
        self.runs = 0

    def preprocess(self, inputs):
        return inputs["x"] @ weights() + self.bias, [len(one) for one in inputs["name"]]

    def predict(self, prepared):
        self.runs += 1
        return prepared[0] + np.array(prepared[1])[:, None]

    def postprocess(self, scores):
        return {"scores": scores, "runs": [self.runs] * len(scores)}
"""
FILES = {
    "data/bias.json": "[0.5, -0.5]",
    "sizes/__init__.py": "",
    "sizes/tables.py": "import numpy\n\ndef weights():\n    return numpy.eye(2)\n",
    "modelkeep.toml": '[model]\nclass = "scoring.main:Scorer"\n',
    "scoring/__init__.py": "",
    "scoring/main.py": SCORES,
}
INPUTS = {"x": np.array([[1, 2], [3, 4]], np.float32), "name": np.array(["ab", "é"], dtype=object)}


def predicting(body: str, **more: str) -> bytes:
    """An archive whose class says this in `predict`."""
    source = "class Model:\n    def load(self, path): pass\n    def predict(self, inputs):\n"
    return archive(model=source + "".join(f"        {line}\n" for line in dedent(body).strip().splitlines()), **more)


def in_process(folder, data):
    """The same class in an ordinary Python."""
    with zipfile.ZipFile(BytesIO(data)) as packed:
        packed.extractall(folder)
    spec = importlib.util.spec_from_file_location("scoring.main", folder / "scoring" / "main.py")
    sys.path.insert(0, str(folder))
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    model = module.Scorer()
    model.load(str(folder))
    return model.postprocess(model.predict(model.preprocess(INPUTS)))


# ---- what is answered


async def test_a_class_in_a_package_with_its_files_answers_as_in_an_ordinary_python(warm_bench, tmp_path):
    data = archive(FILES)
    expected = in_process(tmp_path, data)
    async with warm_bench.start(warm_bench.spec(data, "python")) as runner:
        loaded = await runner.load()
        _result, outputs = await runner.run(**INPUTS)
    assert outputs["scores"].tolist() == expected["scores"].tolist()
    assert loaded.facts.details["class"] == "scoring.main:Scorer"
    assert loaded.facts.signature.inputs == (
        TensorSpec("x", Dtype.FP32, (-1, 2), columns=("a", "b")),
        TensorSpec("name", Dtype.BYTES, (-1,)),
    )
    assert loaded.facts.signature.outputs == (TensorSpec("scores", Dtype.FP64, (-1, 2), classes=("no", "yes")),)


async def test_what_a_class_remembers_lasts_from_run_to_run(warm_bench):
    async with warm_bench.start(warm_bench.spec(archive(FILES), "python")) as runner:
        await runner.load()
        runs = [(await runner.run(**INPUTS))[1]["runs"].tolist() for _ in range(3)]
    assert runs == [[1, 1], [2, 2], [3, 3]]


async def test_a_class_without_a_signature_takes_the_samples_columns(inspect):
    data = predicting("return [f'{n}{t}' for n, t in zip(inputs['age'], inputs['town'])]")
    found = await accepted(inspect, data, "python", b"age,town\n1,Bonn\n2,Ulm\n")
    assert [(one.name, one.dtype) for one in found.signature.inputs] == [("age", Dtype.FP64), ("town", Dtype.BYTES)]
    assert [(one.name, one.dtype, one.shape) for one in found.signature.outputs] == [("output", Dtype.BYTES, (-1,))]
    needed = await refused(inspect, data, "python")
    assert needed.code is Reason.SAMPLE_NEEDED


async def test_a_class_without_a_signature_takes_pictures_lists_dates_and_wide_numbers_as_the_sample_has_them(inspect):
    rows = [
        {"image": [[1, 2], [3, 4]], "tags": ["new", "red"], "account": 2**60 + 1, "day": "2026-05-17"},
        {"image": [[5, 6], [7, 8]], "tags": ["old", "red"], "account": 2**60 + 3, "day": "2026-05-18"},
    ]
    body = """
        assert inputs['image'].shape[1:] == (2, 2) and inputs['tags'].shape[1:] == (2,), inputs
        return {'sum': inputs['image'].sum(axis=(1, 2)), 'first': inputs['tags'][:, 0], 'account': inputs['account']}
    """
    found = await accepted(inspect, predicting(body), "python", json.dumps(rows).encode(), "sample.json")
    assert [(one.name, one.dtype, one.shape, one.kind) for one in found.signature.inputs] == [
        ("image", Dtype.FP64, (-1, 2, 2), ""),
        ("tags", Dtype.BYTES, (-1, 2), ""),
        ("account", Dtype.INT64, (-1,), ""),
        ("day", Dtype.BYTES, (-1,), "datetime"),
    ]
    assert [(one.name, one.dtype) for one in found.signature.outputs] == [
        ("sum", Dtype.FP64),
        ("first", Dtype.BYTES),
        ("account", Dtype.INT64),
    ]


async def test_a_sample_without_columns_is_told_from_none(inspect):
    found = await refused(inspect, predicting("return inputs['x']"), "python", b'{"x": [[1, 2], [3]]}', "sample.json")
    assert found.code is Reason.SAMPLE_NEEDED
    assert "lists of one length" in found.detail


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return inputs['x'] * 2", {"output": [2.0, 4.0]}),
        ("import numpy\nreturn numpy.array(['2026-05-17', 'NaT'], 'datetime64[D]')", {"output": ["2026-05-17", None]}),
        ("import datetime\nreturn {'d': [datetime.date(2026, 5, 17)] * 2}", {"d": ["2026-05-17"] * 2}),
        ("import pandas\nreturn [pandas.Timestamp('2026-05-17T08:30')] * 2", {"output": ["2026-05-17T08:30:00"] * 2}),
        (
            "import pandas as p\nreturn p.DataFrame({'n': [1, 2], 't': ['u', None], 'd': p.to_datetime(['2026-05-17', None])})",
            {"n": [1, 2], "t": ["u", None], "d": ["2026-05-17T00:00:00.000000", None]},
        ),
        ("import pandas\nreturn pandas.DataFrame([[1, 2], [3, 4]])", {"output": [[1, 2], [3, 4]]}),
        ("return list(inputs['x'])", {"output": [1.0, 2.0]}),
        ("return {'a': inputs['x'] > 1, 'b': ['u', 'v']}", {"a": [False, True], "b": ["u", "v"]}),
        ("return [[1, 2], [3, 4]]", {"output": [[1, 2], [3, 4]]}),
    ],
)
async def test_an_answer_may_be_an_array_a_list_or_a_dict_of_them(warm_bench, body, expected):
    _result, outputs = await answers(warm_bench, predicting(body))
    assert {name: array.tolist() for name, array in outputs.items()} == expected


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("raise KeyError('no such thing')", "model_failed", "KeyError: 'no such thing'"),
        ("raise ValueError('these numbers are wrong')", "refused", "ValueError: these numbers are wrong"),
        ("return [[1], [2, 3]]", "model_failed", "is no array"),
        ("return (one for one in inputs['x'])", "model_failed", "generator"),
        ("return [1]", "output_invalid", "for 2 rows"),
        ("return {}", "output_invalid", "nothing"),
        ("return [object(), object()]", "output_invalid", "object"),
        ("return bytearray(1 << 34)", "memory", "MemoryError"),
    ],
)
async def test_a_run_that_fails_is_said_and_the_runner_goes_on(warm_bench, body, code, said):
    data = predicting(f"if len(inputs['x']) == 2:\n    {body}\nreturn inputs['x']")
    async with warm_bench.start(warm_bench.spec(data, "python"), (Column("x", Dtype.FP64),)) as runner:
        await runner.load()
        result, _none = await runner.run(x=np.array([1.0, 2.0]))
        assert isinstance(result, RunFailed)
        assert (result.code, said in result.detail) == (code, True), result
        _result, outputs = await runner.run(x=np.array([1.0]))
        assert outputs["output"].tolist() == [1.0]


@pytest.mark.parametrize(
    "body",
    ["raise SystemExit(0)", "import os; os._exit(0)", "import ctypes; ctypes.string_at(0)"],
)
async def test_what_ends_the_process_is_the_runners_end(inspect, body):
    found = await refused(inspect, predicting(body), "python", b"x\n1\n2\n")
    assert found.code is Reason.PREDICT_CRASHED
    found = await refused(inspect, archive(model=f"{body}\n{python_models.DOUBLES}"), "python", b"x\n1\n2\n")
    assert found.code is Reason.LOAD_CRASHED


async def test_what_a_class_prints_goes_to_its_runners_pipe_at_once(warm_bench):
    data = predicting("print('said on stdout')\nimport sys; sys.stderr.write('said on stderr\\n')\nreturn inputs['x']")
    async with warm_bench.start(warm_bench.spec(data, "python"), (Column("x", Dtype.FP64),)) as runner:
        await runner.load()
        await runner.run(x=np.array([1.0]))
        assert b"said on stdout" in runner.written()
        assert b"said on stderr" in runner.written()


# ---- what is wrong with a class


@pytest.mark.parametrize(
    ("files", "reason", "said"),
    [
        ({"model.py": "x = 1\n"}, Reason.NOT_A_MODEL, "model.py holds no class"),
        ({"model.py": "class A:\n  def load(self, path): pass\n"}, Reason.NOT_A_MODEL, "A has no method predict(inputs)"),
        ({"model.py": "class A:\n  def predict(self, x): pass\n"}, Reason.NOT_A_MODEL, "A has no method load(path)"),
        (
            {"model.py": "class A:\n  def predict(self, x): pass\nclass B(A): pass\n"},
            Reason.NOT_A_MODEL,
            "holds A, B. Call one of them Model",
        ),
        (
            {"model.py": "class Model:\n  def load(self, p): pass\n  async def predict(self, x): pass\n"},
            Reason.NOT_A_MODEL,
            "Model.predict is async",
        ),
        (
            {"model.py": "class Model:\n  def load(self, p): pass\n  def predict(self, x): yield 1\n"},
            Reason.NOT_A_MODEL,
            "Model.predict is a generator",
        ),
        (
            {"model.py": "import scipyy\n"},
            Reason.MISSING_DEPENDENCY,
            "scipyy is not installed here and not among the artifact's",
        ),
        ({"model.py": "import scipyy.stats\n"}, Reason.MISSING_DEPENDENCY, "scipyy is not installed here (model.py, line 1)"),
        ({"model.py": "\n\ndef f(:\n"}, Reason.LOAD_FAILED, "model.py, line 3: "),
        ({"model.py": "import helper\n", "helper.py": "\n1/0\n"}, Reason.LOAD_FAILED, "division by zero (helper.py, line 2)"),
        (
            {"model.py": "class Model:\n  def load(self, p): open(p + '/none')\n  def predict(self, x): pass\n"},
            Reason.LOAD_FAILED,
            "FileNotFoundError",
        ),
        (
            {"model.py": "class Model:\n  def __init__(self, a): pass\n  load = predict = print\n"},
            Reason.LOAD_FAILED,
            "missing 1 required positional argument",
        ),
        ({"modelkeep.toml": "[model]\nclass = 'there'\n"}, Reason.LOAD_FAILED, 'write "module:Class"'),
        ({"modelkeep.toml": "[model\n"}, Reason.LOAD_FAILED, "is no TOML"),
        ({"modelkeep.toml": "[other]\n"}, Reason.LOAD_FAILED, "may hold one thing"),
        ({"modelkeep.toml": "[model]\nclass = 'a.b:C'\n"}, Reason.NOT_A_MODEL, "has no a/b.py"),
        (
            {"modelkeep.toml": "[model]\nclass = 'model:C'\n", "model.py": "class D: pass\n"},
            Reason.NOT_A_MODEL,
            "has no class C; its classes are D",
        ),
        ({"modelkeep.toml": "[model]\nclass = 'os:C'\n", "os.py": ""}, Reason.LOAD_FAILED, "call it otherwise"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_wrong_with_a_class_is_said_in_its_authors_words(warm_bench, files, reason, said):
    found = await failure(warm_bench, archive(files), (Column("x", Dtype.FP64),))
    parts = said.split(" (")
    assert (found.reason, all(part in found.detail for part in parts)) == (reason, True), found.detail


@pytest.mark.parametrize(
    "signature",
    [
        "3",
        "[]",
        "{'outputs': []}",
        "['x']",
        "[{'name': 'x'}]",
        "[{'name': '', 'datatype': 'FP32'}]",
        "[{'name': 'x', 'datatype': 'complex128'}]",
        "[{'name': 'x', 'datatype': ['FP32']}]",
        "[{'name': 'x', 'datatype': 'FP32', 'shape': [2, 2]}]",
        "[{'name': 'x', 'datatype': 'FP32', 'shape': [-1, 0]}]",
        "[{'name': 'x', 'datatype': 'FP32', 'shape': 'all'}]",
        "[{'name': 'x', 'datatype': 'FP32', 'nullable': 1}]",
        "[{'name': 'x', 'datatype': 'FP32', 'columns': ['a']}]",
        "[{'name': 'x', 'datatype': 'FP32'}, {'name': 'x', 'datatype': 'FP32'}]",
        "[{'name': 'x', 'datatype': 'FP32', 'size': 3}]",
        "[{'name': 'x', 'datatype': 'FP32', 'kind': 'datetime'}]",
        "[{'name': 'x', 'datatype': 'BYTES', 'kind': 'wide'}]",
    ],
)
async def test_a_signature_that_is_none_is_refused_with_what_is_wrong_in_it(warm_bench, signature):
    model = f"class Model:\n  signature = {signature}\n  def load(self, p): pass\n  def predict(self, x): pass\n"
    found = await failure(warm_bench, archive(model=model))
    assert found.reason is Reason.SIGNATURE_UNSUPPORTED
    assert "signature is not understood: " in found.detail


# ---- its folder


async def test_what_is_unpacked_counts_against_the_memory_of_the_version(warm_bench):
    model = """
    class Model:
        signature = [{"name": "x", "datatype": "FP64"}]
        def load(self, path): self.ballast = bytearray(120 << 20)
        def predict(self, inputs): return inputs["x"]
    """
    limits = Limits(memory_mb=300, load_timeout_s=20, run_timeout_s=20)
    _light = {"ballast": b"x"}
    heavy = {f"ballast-{at}": bytes(30 << 20) for at in range(7)}
    async with warm_bench.start(warm_bench.spec(archive(_light, model=model), "python", limits=limits)) as runner:
        assert isinstance(await runner.load(), Loaded), "the control: there is room without them"
    confinement = await warm_bench.confinement
    if confinement.holds("namespaces"):
        found = await failure(warm_bench, archive(heavy, model=model), limits=limits)
        assert found.reason is Reason.MEMORY_LIMIT


async def test_the_report_tells_what_is_unpacked_as_memory(inspect, warm_bench):
    light = await accepted(inspect, archive(model=python_models.DOUBLES), "python", b"x\n1\n2\n")
    heavy = await accepted(inspect, archive({"ballast": bytes(50 << 20)}, model=python_models.DOUBLES), "python", b"x\n1\n2\n")
    more = heavy.report.memory_bytes - light.report.memory_bytes
    unpacked = 50 << 20 if (await warm_bench.confinement).holds("namespaces") else 0
    assert abs(more - unpacked) < 12 << 20


@pytest.mark.parametrize("files", [{"a": bytes(70 << 20)}, {f"{at}.bin": bytes(1 << 20) for at in range(70)}])
async def test_an_archive_that_unpacks_to_more_than_its_memory_is_refused(warm_bench, files):
    limits = Limits(memory_mb=64, load_timeout_s=20, run_timeout_s=20)
    data = archive(files, model=python_models.DOUBLES)
    found = await failure(warm_bench, data, limits=limits)
    assert found.reason in {Reason.ARCHIVE_REFUSED, Reason.MEMORY_LIMIT}
    async with warm_bench.start(warm_bench.spec(data, "python")) as runner:
        assert isinstance(await runner.load(), Loaded), "the control: with more memory it is taken"


async def test_wheels_that_unpack_to_more_than_its_memory_are_refused(warm_bench):
    files = wheel("far", "1.0", {f"far/{at}.bin": bytes(1 << 20) for at in range(70)})
    limits = Limits(memory_mb=64, load_timeout_s=20, run_timeout_s=20)
    found = await failure(warm_bench, archive(files, model=python_models.DOUBLES), limits=limits)
    assert found.reason in {Reason.ARCHIVE_REFUSED, Reason.MEMORY_LIMIT}
