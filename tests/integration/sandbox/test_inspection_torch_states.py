"""A state dict in a folder with its class, in real runners: it answers what it answers here, or is refused by name."""

import json

import numpy as np
import pytest
import torch

from fixtures import networks, torch_folders
from fixtures.inspection import accepted, refused
from fixtures.torch_folders import Calls, folder
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.signature import Dtype, ImageSpec
from modelkeep.contracts.snapshot import Limits

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

LIMITS = Limits(memory_mb=2048, load_timeout_s=60, run_timeout_s=20)
SAMPLE = b"[[0.5, 1.0, -1.0, 2.0], [1.5, 0.0, 1.0, -2.0]]"
ROWS = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
STATE = torch_folders.state()
FILES = {
    "weights.pt": networks.saved(STATE),
    "checkpoint.pth": networks.saved({"epoch": 7, "state_dict": STATE}),
    "pytorch_model.bin": networks.saved(STATE, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", FILES)
async def test_it_answers_what_the_class_answers_here(inspect, warm_bench, name, threads):
    data = folder(FILES[name], name=name)
    limits = Limits(memory_mb=2048, load_timeout_s=60, threads=threads)
    found = await accepted(inspect, data, "torch-state", SAMPLE, "sample.json", limits=limits)
    (only,) = found.signature.inputs
    assert (only.name, only.dtype, only.shape) == ("x", Dtype.FP32, (-1, 4))
    assert [(one.name, one.shape) for one in found.signature.outputs] == [("scores", (-1, 3))]
    assert found.report.details["weights"] == name
    assert found.report.details["class"] == "model:Model"
    assert found.report.deterministic
    assert all(check.ok for check in found.report.checks), found.report.checks
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            expected = torch_folders.network()(torch.from_numpy(ROWS))["scores"].numpy()
    finally:
        torch.set_num_threads(before)
    async with warm_bench.start(warm_bench.spec(data, "torch-state", limits=limits, signature=found.signature)) as runner:
        await runner.load()
        for _ in range(3):
            _result, outputs = await runner.run(x=ROWS)
            np.testing.assert_array_equal(outputs["scores"], expected)


DENSE = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    def forward(self, x):
        return self.layers(x)
"""
LAYERS = {f"layers.{name}": one for name, one in networks.dense().state_dict().items()}
MAKES = {
    "the only class": (folder(networks.saved(LAYERS), DENSE), "model:Net"),
    "safetensors": (folder(torch_folders.as_safetensors(LAYERS), DENSE, "a.safetensors"), "model:Net"),
    "a function": (
        folder(
            networks.saved(networks.dense().state_dict()),
            "from torch import nn\ndef build(hidden, classes):\n"
            "    return nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, classes))\n",
            model_json=json.dumps({"hidden": 8, "classes": 3}),
        ),
        "model:build",
    ),
    "a name in modelkeep.toml": (
        folder(networks.saved(LAYERS), DENSE + "class Other(Net): pass\n", modelkeep_toml='[model]\nclass = "model:Net"\n'),
        "model:Net",
    ),
}


@pytest.mark.parametrize("what", MAKES)
async def test_what_makes_the_network_is_found(inspect, warm_bench, what):
    data, name = MAKES[what]
    found = await accepted(inspect, data, "torch-state", SAMPLE, "sample.json", limits=LIMITS)
    assert found.report.details["class"] == name
    with torch.inference_mode():
        expected = networks.dense()(torch.from_numpy(ROWS)).numpy()
    async with warm_bench.start(warm_bench.spec(data, "torch-state", limits=LIMITS, signature=found.signature)) as runner:
        await runner.load()
        _result, outputs = await runner.run(**{found.signature.inputs[0].name: ROWS})
        np.testing.assert_array_equal(outputs["output"], expected)


async def test_a_network_of_pictures_needs_no_sample(inspect):
    source = (
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), "
        "nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))\n"
    )
    data = folder(networks.saved(networks.pictures().state_dict()), source)
    found = await accepted(inspect, data, "torch-state", limits=LIMITS, image=ImageSpec(size=24))
    assert found.scores == "output"


# ---- what is refused


async def failure(inspect, data):
    return await refused(inspect, data, "torch-state", SAMPLE, "sample.json", limits=LIMITS)


async def test_keys_that_differ_are_named(inspect):
    state = {**STATE, "extra.weight": torch.ones(2), "last.weight": torch.ones(5, 8)}
    del state["first.bias"]
    found = await failure(inspect, folder(networks.saved(state)))
    assert found.code is Reason.LOAD_FAILED
    assert "missing: first.bias" in found.detail
    assert "unexpected: extra.weight" in found.detail
    assert "last.weight is [5, 8], and [3, 8] in the class" in found.detail


async def test_a_tensor_that_is_said_to_be_huge_is_of_another_shape(inspect):
    state = {**STATE, "last.bias": torch.ones(1).expand(1 << 45)}
    assert f"last.bias is [{1 << 45}], and [3] in the class" in (await failure(inspect, folder(networks.saved(state)))).detail


@pytest.mark.parametrize(
    ("source", "more", "words"),
    [
        ("x = 1\n", {}, "no class that is a torch.nn.Module"),
        ("class Model:\n    def load(self, path): pass\n    def predict(self, x): pass\n", {}, "is no torch.nn.Module"),
        (DENSE + "class Other(Net): pass\n", {}, "holds Net, Other"),
        ("def build():\n    return 3\n", {}, "returned a int"),
        ("def build(:\n", {}, "model.py, line 1"),
        ("import nowhere_to_be_found\n", {}, "nowhere_to_be_found is not installed"),
        ("raise ValueError('no')\n", {}, "ValueError: no (model.py, line 1)"),
        (torch_folders.SOURCE, {"model_json": '{"height": 3}'}, "unexpected keyword argument 'height'"),
        (torch_folders.SOURCE, {"model_json": "[3]"}, "must be arguments by name"),
        (torch_folders.SOURCE, {"model_json": "{"}, "model.json is no JSON"),
        ("from torch import nn\nclass Model(nn.Module):\n    def __init__(self, width): super().__init__()\n", {}, "'width'"),
        ("from torch import nn\nclass Model(nn.Module): pass\n", {}, "not those of Model"),
        (torch_folders.SOURCE, {"more_pt": b"x"}, "several files of weights: more.pt, weights.pt"),
    ],
)
async def test_what_cannot_be_made_is_said(inspect, source, more, words):
    assert words in (await failure(inspect, folder(FILES["weights.pt"], source, **more))).detail


async def test_wheels_are_for_the_format_python(inspect):
    data = folder(FILES["weights.pt"], **{"wheels/a-1-py3-none-any_whl": b"x"})
    found = await failure(inspect, data)
    assert found.code is Reason.MISSING_DEPENDENCY
    assert "format python" in found.detail


async def test_without_weights_the_words_say_which_are_missing(inspect):
    found = await failure(inspect, folder(b"", name="readme.txt"))
    assert "no file that ends in .pt" in found.detail


async def test_without_a_sample_it_is_asked_for(inspect):
    found = await refused(inspect, folder(FILES["weights.pt"]), "torch-state", limits=LIMITS)
    assert found.code is Reason.SAMPLE_NEEDED


async def test_weights_that_call_something_are_refused_before_the_class_is_imported(inspect):
    data = folder(networks.saved({"w": Calls(torch.ones)}), "raise ValueError('imported')\n")
    found = await failure(inspect, data)
    assert found.code is not Reason.PREDICT_FAILED
    assert "imported" not in found.detail


async def test_the_class_cannot_write_and_finds_no_weights_any_more(inspect):
    source = (
        "import pathlib\nhere = pathlib.Path(__file__).parent\n"
        "try:\n    (here / 'x').write_text('x')\n    said = 'written'\nexcept OSError:\n    said = 'refused'\n"
        "raise ValueError(f'{said} {sorted(one.name for one in here.iterdir())}')\n"
    )
    found = await failure(inspect, folder(FILES["weights.pt"], source))
    assert "refused ['model.py']" in found.detail
