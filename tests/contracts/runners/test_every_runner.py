"""What every runner plugin promises. A new one joins by adding an artifact of each of its formats to `GOOD`.

Formats that are unpacked need a runner's own folder, and are tested in real runners alone.
"""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import archives, artifacts, mlflow_folders, networks, openvino_networks, trees
from modelkeep.contracts import discovery
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Artifact, CannotLoad, LoadOptions, RecognisesFiles
from modelkeep.contracts.signature import dtype_of
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox import archive, loader

GOOD = {
    "echo": artifacts.echo(),
    "onnx": artifacts.onnx_scores(),
    "joblib": artifacts.as_joblib(artifacts.classifier()),
    "pickle": artifacts.as_pickle(artifacts.classifier()),
    "skops": artifacts.as_skops(artifacts.classifier()),
    "xgboost-json": trees.xgboost_file("json"),
    "xgboost-ubj": trees.xgboost_file("ubj"),
    "lightgbm": trees.lightgbm_file(),
    "catboost": trees.catboost_file(),
    "onnx-files": archives.as_zip(archives.onnx_beside()),
    "openvino": archives.as_zip(openvino_networks.openvino_files()),
    "mlflow": archives.as_zip(mlflow_folders.folder("skops", mlflow_folders.MATRIX)),
    "mlflow-code": archives.as_zip(mlflow_folders.folder("sklearn", mlflow_folders.MATRIX)),
    "torchscript": networks.traced(networks.dense(), torch.ones(2, 4)),
    "torch-export": networks.exported(networks.dense(), torch.ones(2, 4), shapes=({0: torch.export.Dim("batch")},)),
}
RUNNERS = {name: discovery.find(discovery.RUNNERS, name) for name in discovery.names(discovery.RUNNERS)}
FORMATS = {one.name: (name, one) for name, runner in RUNNERS.items() for one in runner.manifest.formats}
OTHER_CONTENT = {
    "png": artifacts.picture(),
    "jpeg": artifacts.picture(kind="JPEG"),
    "csv": b"a,b,c\n1,2,3\n",
    "json": b'{"learner": {}}',
    "zip": b"PK\x03\x04" + bytes(22) + b"\x08\0\0\0data.pkl",
    "empty": b"",
    "zeros": bytes(5000),
    "pdf": b"%PDF-1.7\n",
    "hdf5": b"\x89HDF\r\n\x1a\n",
    "text": b"hello world, this is a text of some length",
}


ARCHIVES = {name for name, (_runner, one) in FORMATS.items() if one.archive}

MAY_CRASH = {"catboost"}
"""Formats whose parser a damaged file can crash. A runner process is there for that: here, too, it has one of its own."""

# a runner process ignores warnings: they are the author's business, and were reported at validation
pytestmark = pytest.mark.filterwarnings("ignore")


def load(name, data):
    """Load as a runner process does, from a file."""
    digest = hashlib.sha256(data).hexdigest()
    file = os.memfd_create("artifact")
    try:
        os.write(file, data)
        return loader.load(RunnerSpec("ver_1", digest, len(data), name, FORMATS[name][0]), (), file)
    finally:
        os.close(file)


def ends_apart(name, data):
    """Whether loading in a process of its own ends as it may: refused, loaded, or crashed, and soon."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            with contextlib.suppress(CannotLoad):
                load(name, data)
            os._exit(0)
        finally:
            os._exit(1)
    _pid, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) in {0, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS}


def test_every_format_has_a_good_artifact_here():
    assert set(GOOD) == {name for name, (_runner, one) in FORMATS.items() if one.archive != "folder"}


def test_formats_and_suffixes_belong_to_one_runner_only():
    formats = [one.name for runner in RUNNERS.values() for one in runner.manifest.formats]
    suffixes = [suffix for runner in RUNNERS.values() for one in runner.manifest.formats for suffix in one.suffixes]
    assert len(set(formats)) == len(formats)
    assert len(set(suffixes)) == len(suffixes)
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in suffixes)


@pytest.mark.parametrize("name", RUNNERS)
def test_manifest_is_named_as_its_entry_point(name):
    assert RUNNERS[name].manifest.name == name


@pytest.mark.parametrize("name", RUNNERS)
def test_importing_a_runner_imports_no_framework(name):
    module = RUNNERS[name].__module__
    heavy = {
        "numpy",
        "onnxruntime",
        "sklearn",
        "joblib",
        "pandas",
        "skops",
        "scipy",
        "xgboost",
        "lightgbm",
        "catboost",
        "torch",
        "openvino",
        "yaml",
    }
    code = f"import sys, {module}; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(ARCHIVES & set(GOOD)))
def test_an_archive_is_recognised_by_its_files_and_by_one_runner_only(name):
    names = tuple(entry.name for entry in archive.listed(GOOD[name]))
    asked = {runner: plugin.recognise_files(names) for runner, plugin in RUNNERS.items() if isinstance(plugin, RecognisesFiles)}
    runner, one = FORMATS[name]
    assert {runner: found for runner, found in asked.items() if found} == {runner: asked[runner]}
    assert asked[runner] in {name, *one.also}


@pytest.mark.parametrize("name", sorted(set(GOOD) - ARCHIVES))
def test_recognises_its_own_content_under_its_own_or_an_accepted_name(name):
    runner, one = FORMATS[name]
    data = GOOD[name]
    assert RUNNERS[runner].recognise(data[:4096], data[-4096:]) in {name, *one.also}


@pytest.mark.parametrize("name", sorted(set(GOOD) - ARCHIVES))
def test_no_other_runner_recognises_its_content(name):
    data = GOOD[name]
    found = {runner for runner, plugin in RUNNERS.items() if plugin.recognise(data[:4096], data[-4096:])}
    assert found == {FORMATS[name][0]}


@pytest.mark.parametrize("kind", OTHER_CONTENT)
def test_nobody_recognises_what_is_no_model(kind):
    data = OTHER_CONTENT[kind]
    assert [name for name, plugin in RUNNERS.items() if plugin.recognise(data[:4096], data[-4096:])] == []


@given(st.binary(max_size=200))
def test_recognising_never_raises(data):
    for plugin in RUNNERS.values():
        found = plugin.recognise(data, data)
        assert found is None or found in FORMATS


@pytest.mark.parametrize("name", GOOD)
def test_answers_every_row_with_the_outputs_it_declares(name):
    model = load(name, GOOD[name])
    signature = model.facts.signature
    for rows in (1, 3):
        inputs = {
            spec.name: np.ones((rows, *(2 if axis == -1 else axis for axis in spec.shape[1:])), dtype=spec.dtype.numpy)
            for spec in signature.inputs
        }
        outputs = model.run(inputs)
        assert list(outputs) == [spec.name for spec in signature.outputs]
        for spec in signature.outputs:
            assert len(outputs[spec.name]) == rows
            assert dtype_of(outputs[spec.name].dtype.name) is spec.dtype


@pytest.mark.parametrize("name", GOOD)
def test_says_which_framework_it_is(name):
    facts = load(name, GOOD[name]).facts
    assert facts.framework
    assert facts.framework_version


@pytest.mark.parametrize("name", GOOD)
@settings(max_examples=25, deadline=None)
@given(part=st.floats(0.0, 0.97))
def test_a_file_cut_anywhere_is_called_truncated(name, part):
    data = GOOD[name][: int(len(GOOD[name]) * part)]
    with pytest.raises(CannotLoad) as refused:
        load(name, data)
    short = len(data) < 32  # too little is left to be told from anything else
    allowed = {Reason.TRUNCATED, Reason.UNRECOGNISED} if short else {Reason.TRUNCATED}
    assert refused.value.reason in allowed


@pytest.mark.parametrize("name", sorted(set(GOOD) - ARCHIVES))
def test_no_other_runner_recognises_its_first_bytes(name):
    """However few are there: of a file that is cut nobody may say that it was declared wrongly."""
    for size in range(200):
        part = GOOD[name][:size]
        found = {runner for runner, plugin in RUNNERS.items() if plugin.recognise(part, part)}
        assert found <= {FORMATS[name][0]}, size


@pytest.mark.parametrize("name", GOOD)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_loads_but_never_with_another_kind_of_error(name, data):
    # pickles are left out: damaged ones may call anything, which only a runner process may do
    if FORMATS[name][1].safety == "code":
        return
    content = bytearray(GOOD[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if name in MAY_CRASH:
        assert ends_apart(name, bytes(content))
        return
    with contextlib.suppress(CannotLoad):
        load(name, bytes(content))


@pytest.mark.parametrize("name", GOOD)
def test_what_was_found_at_validation_holds_when_it_is_served(name):
    first = load(name, GOOD[name])
    runner = RUNNERS[FORMATS[name][0]]
    held = Artifact(b"", name, archive.contents(GOOD[name])) if name in ARCHIVES else Artifact(GOOD[name], name)
    again = runner().load(held, LoadOptions(signature=first.facts.signature))
    assert again.facts.signature == first.facts.signature


@pytest.mark.parametrize("name", GOOD)
def test_a_bundle_of_wrong_content_is_called_by_its_name(name):
    for other, data in GOOD.items():
        if other in {name, *FORMATS[name][1].also}:
            continue
        with pytest.raises(CannotLoad) as refused:
            load(name, data)
        assert refused.value.reason is Reason.MISMATCH
        assert other in refused.value.detail or set(FORMATS[other][1].also) & set(refused.value.detail.split())
