"""What a hostile model finds around itself. Each attack is carried by a pickle and shown to work where nothing confines it."""

import asyncio
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from fixtures import artifacts
from modelkeep.contracts.snapshot import Limits
from modelkeep.sandbox.lockdown import ENVIRONMENT

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEMORY_MB = 1500
SECRET = "must not reach a runner"

PROBES = {
    "environment": "dict(os.environ)",
    "environment in C": "ctypes.CDLL(None).getenv(b'SECRET_OF_THE_SUPERVISOR')",
    "descriptors": "descriptors()",
    "stdin": "os.read(0, 10).decode()",
    "folder": "os.getcwd()",
    "core": "resource.getrlimit(resource.RLIMIT_CORE)",
    "memory": "resource.getrlimit(resource.RLIMIT_AS)",
    "files": "resource.getrlimit(resource.RLIMIT_NOFILE)",
    "nice": "os.getpriority(os.PRIO_PROCESS, 0)",
    "no new privileges": "ctypes.CDLL(None).prctl(39, 0, 0, 0, 0)",
    "dumpable": "ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)",
    "dies with parent": "death_signal()",
    "main module": "sorted(name for name in vars(sys.modules['__main__']) if not name.startswith('__'))",
    "write a file": "write()",
    "raise the memory limit": "raise_limit()",
    "open many files": "open_many()",
    "map 10 GiB": "len(mmap.mmap(-1, 10 << 30))",
}

SOURCE = f"""
import ctypes, json, mmap, os, resource, stat, sys
def death_signal():
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)
    return number.value
def descriptors():
    return [(stat.S_IFMT(os.fstat(number).st_mode), os.fstat(number).st_ino) for number in range(1000) if is_open(number)]
def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
def write():
    path = os.path.join('/tmp', 'modelkeep-probe-%d' % os.getpid())
    try:
        with open(path, 'wb') as file:
            file.write(b'x' * 100000)
    finally:
        os.unlink(path)
    return 'written'
def raise_limit():
    resource.setrlimit(resource.RLIMIT_NOFILE, (100000, 100000))
    return 'raised'
def open_many():
    files = [open('/dev/null') for _ in range(900)]
    return len(files)
def look(what):
    try:
        return eval(what, globals())
    except BaseException as error:
        return 'refused: ' + type(error).__name__
probes = {PROBES!r}
class Model:
    n_features_in_ = 1
    def predict(self, rows):
        import numpy
        answer = numpy.empty(len(rows), dtype=object)
        answer[:] = [json.dumps({{name: look(what) for name, what in probes.items()}})] * len(rows)
        return answer
model = Model()
"""


@pytest.fixture(scope="module")
def unconfined():
    """The control: the same source in a process that nobody confined."""
    read, write = os.pipe()
    code = SOURCE + "\nsys.stdout.write(str(model.predict([[1]])[0]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="said on stdin",
        env={**os.environ, "SECRET_OF_THE_SUPERVISOR": SECRET},
        pass_fds=(read, write),
        capture_output=True,
        text=True,
        check=True,
    )
    os.close(read)
    os.close(write)
    return {**json.loads(done.stdout), "oom": Path("/proc/self/oom_score_adj").read_text(encoding="ascii").strip()}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["forked ahead", "forked when asked"])
async def confined(warm_bench, request):
    spec = warm_bench.spec(artifacts.pickle_running(SOURCE), "pickle", limits=Limits(memory_mb=MEMORY_MB))
    async with warm_bench.start(spec) as runner:  # what it needs is imported for the first
        await runner.load()
    waiting = await warm_bench.waiting()
    if request.param == "forked when asked":
        waiting.kill()
        await asyncio.to_thread(waiting.wait)
    async with warm_bench.start(spec) as runner:
        await runner.load()
        assert (runner.pid == waiting.pid) == (request.param == "forked ahead")
        _result, outputs = await runner.run(input=np.ones((1, 1)))
        oom = Path(f"/proc/{runner.pid}/oom_score_adj").read_text(encoding="ascii").strip()
        return {**json.loads(outputs["output"][0]), "oom": oom}


@pytest.fixture
def look(confined, unconfined):
    return lambda name: (confined[name], unconfined[name])


async def test_the_environment_is_a_fixed_list(look):
    inside, outside = look("environment")
    assert outside["SECRET_OF_THE_SUPERVISOR"] == SECRET
    own = {name: value for name, value in inside.items() if not name.startswith("KMP_")}  # scikit-learn's, set on import
    assert own == ENVIRONMENT


async def test_the_environment_is_gone_for_c_too(look):
    inside, outside = look("environment in C")
    assert outside != 0
    assert inside == 0


async def test_only_its_own_descriptors_are_open(look):
    inside, outside = look("descriptors")
    assert sum(kind == stat.S_IFIFO for kind, _inode in outside) > 2  # what the control inherited
    kinds = [kind for kind, _inode in inside]
    assert kinds.count(stat.S_IFSOCK) == 2  # its channel, and its server
    assert kinds.count(stat.S_IFIFO) == 2  # stdout and stderr, one pipe
    assert len({inode for kind, inode in inside if kind == stat.S_IFIFO}) == 1
    assert kinds.count(stat.S_IFCHR) == 1  # stdin: /dev/null
    assert kinds.count(stat.S_IFREG) == 1  # the count of its own memory; the artifact is closed once it is read
    assert len(inside) == 6


async def test_nothing_is_to_be_read_on_stdin(look):
    assert look("stdin") == ("", "said on st")


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("folder", "/"),
        ("core", [0, 0]),
        ("files", [256, 256]),
        ("no new privileges", 1),
        ("oom", "1000"),
        ("dumpable", 0),
        ("dies with parent", 9),
    ],
)
async def test_limits_are_in_force(look, what, value):
    inside, outside = look(what)
    assert inside == value
    assert outside != value


async def test_its_memory_is_limited_beside_what_is_mapped_at_its_start(look):
    (soft, hard), outside = look("memory")
    assert soft == hard != outside[0]
    assert MEMORY_MB << 20 < soft < (MEMORY_MB << 20) + (4 << 30)


async def test_it_is_nicer_than_others(look):
    inside, outside = look("nice")
    assert inside > outside


async def test_the_templates_own_module_is_out_of_reach(look):
    inside, outside = look("main module")
    assert "SOURCE" not in inside
    assert inside == []
    assert "probes" in outside


@pytest.mark.parametrize(
    ("what", "outside_answer", "refusal"),
    [
        ("write a file", "written", ""),
        ("open many files", 900, "OSError"),
        ("map 10 GiB", 10 << 30, "OSError"),
    ],
)
async def test_what_works_unconfined_is_refused(look, what, outside_answer, refusal):
    inside, outside = look(what)
    assert outside == outside_answer
    assert inside.startswith(f"refused: {refusal}")  # there may be no such folder in its view, or one that is read-only
