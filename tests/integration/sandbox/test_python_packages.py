"""What Python classes bring along: packages in wheels, a numpy of their own, and what is said of those that cannot be had."""

import sys
from importlib import metadata

import numpy as np
import pytest

from fixtures import python_models
from fixtures.foreign import foreign
from fixtures.python_models import archive, compiled_wheel, installed_wheel, sha256, wheel
from fixtures.python_runs import answers, failure
from modelkeep.contracts.rejections import Reason
from modelkeep.sandbox.frames import Loaded, RunFailed

pytestmark = pytest.mark.asyncio(loop_scope="module")

KNOWN = "classes are given arrays of numpy 1.26 to 2.x"


def numpy_that_says(source: str, version: str) -> dict[str, bytes]:
    """A wheel of a numpy that is nothing but this."""
    return wheel("numpy", version, {"numpy/__init__.py": f"{source}\n"})


async def test_packages_are_imported_from_the_artifacts_wheels_and_know_their_versions(warm_bench):
    model = """
    from importlib import metadata
    import twice, deeper.inside, tool_of_twice

    class Model:
        signature = [{"name": "x", "datatype": "FP64"}]

        def load(self, path):
            (point,) = metadata.entry_points(group="tests.twice")
            self.double = point.load()

        def predict(self, inputs):
            texts = [metadata.version("twice"), deeper.inside.NAME]
            return {"y": self.double(inputs["x"]), "said": texts}
    """
    brought = wheel(
        "twice",
        "3.1",
        {
            "twice.py": "def double(x):\n    return 2 * x\n",
            "twice-3.1.data/purelib/tool_of_twice.py": "",
            "twice-3.1.data/scripts/twice": "#!python\n",
            "twice-3.1.dist-info/entry_points.txt": "[tests.twice]\ndouble = twice:double\n",
        },
        needs=("deeper>=1", "numpy", "nothing; extra == 'more'"),
    )
    digest = sha256(next(iter(brought.values())))
    files = {
        **brought,
        **wheel("deeper", "1.0", {"deeper/__init__.py": "", "deeper/inside.py": "NAME = 'inside'\n"}),
        "requirements.txt": f"# locked\ntwice==3.1 \\\n  --hash=sha256:{digest}\n--index-url somewhere\ndeeper==1.0\n",
    }
    async with warm_bench.start(warm_bench.spec(archive(files, model=model), "python")) as runner:
        loaded = await runner.load()
        assert isinstance(loaded, Loaded), loaded
        _result, outputs = await runner.run(x=np.array([1.0, 2.0]))
    assert outputs["y"].tolist() == [2.0, 4.0]
    assert outputs["said"].tolist() == ["3.1", "inside"]
    assert loaded.facts.details["packages"] == "deeper 1.0, twice 3.1"


async def test_a_compiled_module_is_loaded_from_a_wheel(warm_bench):
    files = compiled_wheel("markupsafe", "_speedups", "speedy")
    model = """
    from speedy import _speedups

    class Model:
        signature = [{"name": "x", "datatype": "BYTES"}]

        def load(self, path):
            self.where = _speedups.__file__

        def predict(self, inputs):
            return {"safe": [_speedups._escape_inner(one) for one in inputs["x"]], "from": [self.where]}
    """
    _result, outputs = await answers(warm_bench, archive(files, model=model), x=np.array(["<b>"], dtype=object))
    assert outputs["safe"].tolist() == ["&lt;b&gt;"]
    assert "/.packages/speedy/_speedups." in outputs["from"][0]


async def test_a_package_in_another_version_than_the_installed_one_is_the_artifacts(warm_bench):
    installed = metadata.version("scikit-learn")
    model = """
    import sklearn

    class Model:
        signature = [{"name": "x", "datatype": "FP64"}]
        def load(self, path): pass
        def predict(self, inputs): return [sklearn.__version__] * len(inputs["x"])
    """
    brought = wheel("scikit_learn", "0.1", {"sklearn/__init__.py": "__version__ = '0.1'\n"})
    for files, version in (({}, installed), ({**brought, "requirements.txt": "scikit-learn==0.1\n"}, "0.1")):
        _result, outputs = await answers(warm_bench, archive(files, model=model))
        assert outputs["output"].tolist() == [version] * 2


NUMPY_1 = pytest.mark.skipif(sys.version_info >= (3, 13), reason="there are no wheels of numpy 1.26 for this Python")


@pytest.mark.parametrize("environment", [pytest.param("numpy_1", marks=NUMPY_1), "numpy_2"])
async def test_a_class_is_given_arrays_of_the_numpy_that_it_brings(warm_bench, environment):
    there = foreign(environment)
    files, version = installed_wheel(there.packages, "numpy")
    assert version != metadata.version("numpy"), "the control: another would show nothing"
    model = """
    import sys
    import numpy as np

    class Model:
        signature = [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}, {"name": "t", "datatype": "BYTES"}]

        def load(self, path):
            self.weights = np.linalg.inv(np.array([[2.0, 0.0], [1.0, 1.0]]))

        def predict(self, inputs):
            rows = inputs["x"]
            assert type(rows) is np.ndarray and type(inputs["t"][0]) is str, inputs
            return {
                "y": rows @ self.weights,
                "half": rows.astype("float16"),
                "day": np.array(["2026-05-17", "NaT"], "datetime64[D]"),
                "text": np.char.upper(inputs["t"].astype(str)),
                "version": [np.__version__] * len(rows),
            }
    """
    rows = np.array([[2.0, 0.0], [4.0, 6.0]])
    data = archive({**files, "requirements.txt": f"numpy=={version}\n"}, model=model)
    result, outputs = await answers(warm_bench, data, x=rows, t=np.array(["a", "é"], dtype=object))
    assert not isinstance(result, RunFailed), result
    assert outputs["version"].tolist() == [version] * 2
    assert outputs["y"].tolist() == (rows @ np.linalg.inv(np.array([[2.0, 0.0], [1.0, 1.0]]))).tolist()
    assert (outputs["half"].dtype, outputs["half"].tolist()) == (np.float16, rows.tolist())
    assert outputs["day"].tolist() == ["2026-05-17", None]
    assert outputs["text"].tolist() == ["A", "É"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            numpy_that_says("__version__ = '1.25.2'", "1.25.2"),
            f"brings numpy 1.25.2; {KNOWN}",
        ),
        (
            numpy_that_says("__version__ = '3.0.0'", "3.0.0"),
            f"brings numpy 3.0.0; {KNOWN}",
        ),
        (numpy_that_says("", "2.1.0"), f"brings a numpy without a version; {KNOWN}"),
        (numpy_that_says("import gone", "2.1.0"), "gone is not installed here and not among the artifact's wheels"),
    ],
    ids=["older", "newer", "none", "broken"],
)
async def test_a_numpy_that_we_cannot_speak_with_is_refused_by_its_version(warm_bench, files, said):
    found = await failure(warm_bench, archive(files, model=python_models.DOUBLES))
    assert (found.reason, said in found.detail) == (Reason.MISSING_DEPENDENCY, True), found.detail


async def test_files_of_the_authors_are_not_taken_for_modules_that_numpy_imports(warm_bench):
    body = {"secrets.py": "1/0", "random.py": "1/0", "numpy/__init__.py": "1/0"}
    drawn = "import numpy; self.factor = float(numpy.random.randint(2, 3))"
    drawing = python_models.DOUBLES.replace("self.factor = 2.0", drawn)
    _result, outputs = await answers(warm_bench, archive(body, model=drawing))
    assert outputs["y"].tolist() == [2.0, 4.0]


async def test_no_package_but_ours_is_there_before_the_artifacts_own(warm_bench):
    looking = """
import sys
tops = {one.partition(".")[0] for one in sys.modules if not one.startswith("_sysconfigdata")}
from typing_extensions import WHOSE
raise ImportError(f"{WHOSE}: {sorted(tops - set(sys.stdlib_module_names))}")
"""
    files = {
        **numpy_that_says(looking, "2.1.0"),
        **wheel("typing_extensions", "0.1", {"typing_extensions.py": "WHOSE = 'the author'\n"}),
    }
    found = await failure(warm_bench, archive(files, model=python_models.DOUBLES))
    assert "the author: ['__main__', 'modelkeep', 'msgspec', 'numpy']" in found.detail


@pytest.mark.parametrize(
    ("files", "reason", "said"),
    [
        (
            wheel("msgspec", "0.1", {"msgspec/__init__.py": ""}),
            Reason.MISSING_DEPENDENCY,
            "msgspec-0.1-py3-none-any.whl conflicts with msgspec",
        ),
        (
            wheel("far", "1.0", {"far.py": ""}, tag="cp311-cp311-win_amd64"),
            Reason.MISSING_DEPENDENCY,
            "is for another Python or machine (cp311-cp311-win_amd64)",
        ),
        ({"requirements.txt": "gone==2.0\n"}, Reason.MISSING_DEPENDENCY, "asks for gone 2.0, and wheels/ has no wheel of it."),
        (
            {"requirements.txt": "far==2.0\n", **wheel("far", "1.0", {"far.py": ""})},
            Reason.MISSING_DEPENDENCY,
            "the wheel there is of 1.0",
        ),
        ({"requirements.txt": "\nfar>=2.0\n"}, Reason.LOAD_FAILED, "line 2, does not lock far to one version"),
        ({"requirements.txt": "-e .\n"}, Reason.LOAD_FAILED, "line 1, is no locked requirement"),
        (
            {"requirements.txt": f"far==1.0 --hash=sha256:{'0' * 64}\n", **wheel("far", "1.0", {"far.py": ""})},
            Reason.CORRUPT,
            "has another hash than requirements.txt says for far 1.0",
        ),
        (
            wheel("far", "1.0", {"far.py": ""}, needs=("further>=2",)),
            Reason.MISSING_DEPENDENCY,
            "far 1.0 needs further>=2: it is neither installed here nor among",
        ),
        ({"wheels/far.whl": b"x"}, Reason.LOAD_FAILED, "far.whl is not named as a wheel is"),
        ({"wheels/far-1.0-py3-none-any.whl": b"x"}, Reason.LOAD_FAILED, "is damaged"),
        (
            {**wheel("far", "1.0", {"far.py": ""}), **wheel("Far", "2.0", {"far.py": ""})},
            Reason.LOAD_FAILED,
            "There are two wheels of far",
        ),
        (wheel("far", "1.0", {"../far.py": ""}), Reason.ARCHIVE_REFUSED, "is no plain relative name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_packages_that_cannot_be_had_are_named(warm_bench, files, reason, said):
    found = await failure(warm_bench, archive(files, model=python_models.DOUBLES))
    assert (found.reason, said in found.detail) == (reason, True), found.detail
