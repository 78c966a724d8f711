"""PyTorch networks answer exactly as torch does in the process that made them, however they were saved."""

import io
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import networks
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Artifact, CannotLoad, Column, LoadOptions
from modelkeep.contracts.signature import Dtype
from modelkeep.plugins.runners.torch import TorchRunner

pytestmark = pytest.mark.filterwarnings("ignore")

BATCH, LENGTH = torch.export.Dim("batch"), torch.export.Dim("length")
TOKENS = torch.ones(2, 7, dtype=torch.int64)
NUMBERS = tuple(Column("", Dtype.FP64) for _ in range(4))


def load(data, name="torchscript", **options):
    return TorchRunner().load(Artifact(data, name), LoadOptions(**options))


def refused(data, name="torchscript", **options):
    with pytest.raises(CannotLoad) as refusal:
        load(data, name, **options)
    return refusal.value


def compare(model, expected, *, rows=5, pieces=0):
    """Run the model and the function on the same rows, by as many as are in a piece; outputs are equal to the last bit."""
    inputs = networks.rows(model.facts.signature, rows)
    whole = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
    filled = {name: torch.cat((one, one[-1:].expand(2, *one.shape[1:])))[: max(rows, pieces)] for name, one in whole.items()}
    with torch.inference_mode():
        wanted = {name: one[:rows] for name, one in expected(**filled).items()}
    for _ in range(4):  # TorchScript changes its own code after its first runs
        answer = model.run(inputs)
        assert list(answer) == list(wanted)
        for name, array in answer.items():
            np.testing.assert_array_equal(array, wanted[name].float().numpy() if array.dtype == "f4" else wanted[name].numpy())


def only(module):
    return lambda **inputs: {"output": module(*inputs.values())}


ARCHITECTURES = {
    # a module, an example, open axes for torch.export, the sample that a scripted one needs, its answers by name
    "dense": (networks.dense(), (torch.ones(2, 4),), ({0: BATCH},), NUMBERS, None),
    "pictures": (
        networks.pictures(),
        (torch.ones(2, 3, 12, 12),),
        ({0: BATCH},),
        (Column("", Dtype.FP64, shape=(3, 12, 12)),),
        None,
    ),
    "sequence": (
        networks.seeded(networks.Sequence),
        (TOKENS,),
        ({0: BATCH},),  # torch.export fixes the length that an LSTM was exported with
        (Column("tokens", Dtype.INT64, shape=(7,)),),
        None,
    ),
    "two inputs": (
        networks.seeded(networks.Masked),
        (TOKENS, TOKENS.clone()),
        ({0: BATCH, 1: LENGTH}, {0: BATCH, 1: LENGTH}),
        (Column("ids", Dtype.INT64, shape=(7,)), Column("mask", Dtype.INT64, shape=(7,))),
        dict,
    ),
    "tuple": (networks.Pair(), (torch.ones(2, 4),), ({0: BATCH},), NUMBERS, lambda pair: dict(zip(OUTPUTS, pair, strict=True))),
    "named tuple": (networks.Moments(), (torch.ones(2, 4),), ({0: BATCH},), NUMBERS, lambda moments: moments._asdict()),
    "dropout": (networks.seeded(networks.Dropped), (torch.ones(2, 4),), ({0: BATCH},), NUMBERS, None),
}
OUTPUTS = ("output_0", "output_1")


FORMS = [(what, form) for what in ARCHITECTURES for form in ("traced", "scripted", "exported")]
FORMS.remove(("named tuple", "exported"))  # torch.export does not save those


@pytest.mark.parametrize(("what", "form"), FORMS)
def test_it_answers_what_the_module_answers(what, form):
    module, example, shapes, sample, naming = ARCHITECTURES[what]
    match form:
        case "traced":
            model = load(networks.traced(module, *example))
        case "scripted":
            model = load(networks.scripted(module), sample=sample)
        case _:
            model = load(networks.exported(module, *example, shapes=shapes), "torch-export")
    name = (naming or (lambda answer: {"output": answer})) if not (form == "traced" and what == "named tuple") else None
    name = name or (lambda moments: dict(zip(OUTPUTS, moments, strict=True)))  # a trace keeps no names of a tuple
    compare(model, lambda **inputs: name(module(*inputs.values())))
    assert [one.name for one in model.facts.signature.outputs] == list(model.run(networks.rows(model.facts.signature, 2)))
    again = load(ARTIFACT_OF[form](module, example, shapes), signature=model.facts.signature)
    assert again.facts.signature == model.facts.signature
    compare(again, lambda **inputs: name(module(*inputs.values())), rows=1)


ARTIFACT_OF = {
    "traced": lambda module, example, _shapes: networks.traced(module, *example),
    "scripted": lambda module, _example, _shapes: networks.scripted(module),
    "exported": lambda module, example, shapes: networks.exported(module, *example, shapes=shapes),
}


def test_control_flow_by_values_is_kept():
    module = networks.Branches()
    compare(load(networks.scripted(module), sample=NUMBERS), only(module))


def test_an_argument_with_a_default_may_be_left_out_or_given():
    module = networks.Optional()
    alone = load(networks.scripted(module), sample=(Column("x", Dtype.FP64, shape=(4,)),))
    assert [one.name for one in alone.facts.signature.inputs] == ["x"]
    compare(alone, only(module))
    both = load(networks.scripted(module), sample=tuple(Column(name, Dtype.FP64, shape=(4,)) for name in ("x", "offset")))
    assert [one.name for one in both.facts.signature.inputs] == ["x", "offset"]
    compare(both, only(module))


SERVED = [one for one in Dtype if one is not Dtype.BYTES]


@pytest.mark.parametrize("dtype", SERVED)
@pytest.mark.parametrize("form", ["traced", "exported"])
def test_every_datatype_goes_in_and_comes_out(dtype, form):
    kind = getattr(torch, dtype.numpy)
    example = torch.ones(2, 4, dtype=kind)
    make = networks.traced if form == "traced" else networks.exported
    model = load(make(networks.Rest(), example))
    assert [one.dtype for one in (*model.facts.signature.inputs, *model.facts.signature.outputs)] == [dtype, dtype]
    rows = networks.rows(model.facts.signature, 2)
    np.testing.assert_array_equal(model.run(rows)["output"], rows["x"][:, 1:])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e4m3fn])
def test_datatypes_that_numpy_has_not_are_widened_and_said(kind):
    model = load(networks.scripted(networks.Cast(kind)), sample=NUMBERS)
    assert model.facts.signature.outputs[0].dtype is Dtype.FP32
    assert "widened" in model.facts.warnings[0]
    compare(model, only(networks.Cast(kind)))


def test_a_network_of_bfloat16_takes_fp32():
    module = networks.dense().to(torch.bfloat16)
    model = load(networks.scripted(module), sample=NUMBERS)
    compare(model, lambda **inputs: {"output": module(inputs["input"].to(torch.bfloat16))})
    again = load(networks.scripted(module), signature=model.facts.signature)
    compare(again, lambda **inputs: {"output": module(inputs["input"].to(torch.bfloat16))})


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "data",
    [networks.exported(networks.dense(), torch.ones(2, 4)), networks.traced(networks.OfTwo(), torch.ones(2, 4))],
    ids=["exported", "traced"],
)
def test_a_fixed_batch_is_run_in_pieces(data, rows):
    model = load(data)
    assert model.facts.details["fixed_batch"] == "2"
    assert "exactly 2 rows" in model.facts.warnings[0]
    module = networks.dense() if model.facts.kind == "exported program" else torch.nn.Identity()
    compare(model, only(module), rows=rows, pieces=2)


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_a_batch_within_bounds_is_run_in_pieces(rows):
    bounded = torch.export.Dim("batch", min=2, max=3)
    model = load(networks.exported(networks.dense(), torch.ones(2, 4), shapes=({0: bounded},)))
    compare(model, only(networks.dense()), rows=rows, pieces=2)


def test_a_network_that_writes_into_its_input_does_not_write_into_the_callers():
    model = load(networks.scripted(networks.InPlace()), sample=NUMBERS)
    rows = networks.rows(model.facts.signature, 3)
    kept = {name: array.copy() for name, array in rows.items()}
    for array in rows.values():
        array.flags.writeable = False
    assert (model.run(rows)["output"] == kept["x"] + 1).all()
    np.testing.assert_array_equal(rows["x"], kept["x"])


# ---- what is refused


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (networks.saved(networks.dense().state_dict()), Reason.NOT_A_MODEL, "4 tensors (0.weight, 0.bias, 2.weight, ...)"),
        (networks.saved({"model": {"w": torch.ones(2)}, "epoch": 3}), Reason.NOT_A_MODEL, "1 tensor (model.w)"),
        (networks.saved({"epoch": 3}), Reason.NOT_A_MODEL, "a dict without a model"),
        (networks.saved(networks.dense()), Reason.UNRECOGNISED, "pickled Sequential"),
        (networks.saved(networks.dense(), _use_new_zipfile_serialization=False), Reason.UNRECOGNISED, "pickled Sequential"),
        (
            networks.saved(networks.dense().state_dict(), _use_new_zipfile_serialization=False),
            Reason.NOT_A_MODEL,
            "4 tensors",
        ),
        (networks.safetensors({"a.weight": np.ones(3, "f4")}), Reason.NOT_A_MODEL, "1 tensor (a.weight)"),
        (networks.safetensors({"a.weight": np.ones(3, "f4")})[:20], Reason.TRUNCATED, "20 bytes"),
        (b"\x18\0\0\0PTMF" + bytes(64), Reason.UNRECOGNISED, "FlatBuffers"),
    ],
)
def test_what_holds_no_model_is_refused_with_what_is_in_it(data, reason, words):
    assert TorchRunner.recognise(data[:4096], data[-4096:]) == "torchscript"
    error = refused(data)
    assert error.reason is reason
    assert words in error.detail


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a/.data/extern_modules", "a/m.pkl", "a/.data/version"], "torch.package"),
        (["a/archive_format", "a/data/aotinductor/model/x.so"], "AOTInductor"),
        (["a/archive_format", "a/version"], "no model in it"),
    ],
)
def test_archives_of_other_kinds_are_called_by_their_names(names, words):
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    assert words in refused(into.getvalue()).detail


def test_a_pickle_among_the_weights_is_never_run(tmp_path):
    class Writes:
        def __reduce__(self):
            return (tmp_path / "written").touch, ()

    for new in (True, False):
        error = refused(networks.saved({"w": Writes()}, _use_new_zipfile_serialization=new))
        assert error.reason in {Reason.UNRECOGNISED, Reason.LOAD_FAILED}
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    ("make", "sample", "reason", "words"),
    [
        (networks.dense, (), Reason.SAMPLE_NEEDED, "forward() takes input"),
        (networks.dense, (Column("a", Dtype.BYTES),), Reason.SAMPLE_MISMATCH, "texts in a"),
        (networks.Masked, NUMBERS, Reason.SAMPLE_MISMATCH, "forward() takes ids, mask"),
        (networks.Named, NUMBERS, Reason.SIGNATURE_UNSUPPORTED, "name: str"),
        (networks.Length, NUMBERS, Reason.SIGNATURE_UNSUPPORTED, "answers a int"),
        (networks.Complex, NUMBERS, Reason.SIGNATURE_UNSUPPORTED, "complex64"),
    ],
)
def test_what_cannot_be_served_is_said(make, sample, reason, words):
    error = refused(networks.scripted(make()), sample=sample)
    assert error.reason is reason
    assert words in error.detail


def test_a_bomb_is_refused_before_it_is_unpacked():
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a/data.pkl", "a/constants.pkl"):
            archive.writestr(name, b"x")
        for at in range(5):
            archive.writestr(f"a/code/{at}.py", bytes(64 << 20))
    assert len(into.getvalue()) < 1 << 20
    assert "320 MB" in refused(into.getvalue()).detail


GOOD = {
    "torchscript": networks.traced(networks.dense(), torch.ones(2, 4)),
    "torch-export": networks.exported(networks.dense(), torch.ones(2, 4), shapes=({0: BATCH},)),
}


@pytest.mark.parametrize("name", GOOD)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_changes_an_answer(name, data):
    content = bytearray(GOOD[name])
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    rows = {"input": np.ones((2, 4), np.float32)}
    try:
        answer = load(bytes(content), name).run(rows)
    except (CannotLoad, RuntimeError, AssertionError, KeyError):
        return  # the latter are torch's own words, which the loader passes on
    np.testing.assert_array_equal(answer["output"], load(GOOD[name], name).run(rows)["output"])
