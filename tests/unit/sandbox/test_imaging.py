"""Pictures of every kind become the tensor that the version's preparation says."""

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fixtures import artifacts
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad, ModelFacts
from modelkeep.contracts.signature import Dtype, ImageSpec, Layout, Signature, TensorSpec
from modelkeep.sandbox.imaging import FORMATS, BadImageError, Pictures, decode

pytestmark = pytest.mark.filterwarnings("ignore")  # as a runner process does

PLAIN = ImageSpec(size=4, crop=1.0, mean=(0, 0, 0), std=(1, 1, 1), activation="none")
SCORES = TensorSpec("scores", Dtype.FP32, (-1, 5))


def inner(size=4, layout="NCHW", dtype=Dtype.FP32, channels=3):
    shape = (-1, channels, size, size) if layout == "NCHW" else (-1, size, size, channels)
    return Signature((TensorSpec("pixels", dtype, shape),), (SCORES,))


def encoded(picture, kind="PNG", **options):
    into = io.BytesIO()
    picture.save(into, kind, **options)
    return into.getvalue()


def tensor(*pictures, spec=PLAIN, signature=None):
    array = np.empty(len(pictures), dtype=object)
    array[:] = pictures
    return Pictures(spec, signature or inner(spec.size, spec.layout)).tensors({"image": array})["pixels"]


def colour(data, spec=PLAIN):
    """The mean colour of the prepared picture."""
    return tensor(data, spec=spec)[0].mean(axis=(1, 2)).round().astype(int).tolist()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_allowed_format_is_decoded(kind):
    data = artifacts.picture(colour=(255, 0, 0), kind=kind)
    assert np.allclose(colour(data), [255, 0, 0], atol=3)


@pytest.mark.parametrize("kind", ["ICO", "PPM", "TGA", "PCX"])
def test_other_formats_are_refused(kind):
    with pytest.raises(BadImageError, match="known format"):
        tensor(artifacts.picture(kind=kind))


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.new("L", (8, 8), 90), [90, 90, 90]),
        (Image.new("1", (8, 8), 1), [255, 255, 255]),
        (Image.new("RGBA", (8, 8), (255, 0, 0, 0)), [255, 255, 255]),
        (Image.new("RGBA", (8, 8), (255, 0, 0, 128)), [255, 127, 127]),
        (Image.new("LA", (8, 8), (0, 0)), [255, 255, 255]),
        (Image.new("P", (8, 8), 0), [0, 0, 0]),
        (Image.fromarray(np.full((8, 8), 65535, dtype=np.uint16)), [255, 255, 255]),
        (Image.fromarray(np.full((8, 8), 32896, dtype=np.uint16)), [128, 128, 128]),
    ],
    ids=["grey", "bits", "clear", "half clear", "grey clear", "palette", "16 bit white", "16 bit grey"],
)
def test_every_mode_of_png_becomes_rgb(picture, expected):
    assert np.allclose(colour(encoded(picture)), expected, atol=1)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)), 128),
        (Image.fromarray(np.full((8, 8), 200.0, dtype=np.float32)), 200),
        (Image.fromarray(np.full((8, 8), 200, dtype=np.int32)), 200),
        (Image.fromarray(np.full((8, 8), 65535, dtype=np.int32)), 255),
    ],
    ids=["floats to one", "floats to 255", "small integers", "large integers"],
)
def test_scientific_tiffs_become_grey(picture, expected):
    assert np.allclose(colour(encoded(picture, "TIFF")), [expected] * 3, atol=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_float_picture_with_a_value_that_is_no_number_is_refused_in_words(value):
    pixels = np.full((8, 8), 0.5, dtype=np.float32)
    pixels[3, 4] = value
    with pytest.raises(BadImageError, match="no numbers"):
        tensor(encoded(Image.fromarray(pixels), "TIFF"))


def test_a_cmyk_jpeg_has_its_colours():
    data = encoded(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG")
    assert np.allclose(colour(data), [254, 0, 0], atol=6)


def test_a_palette_with_transparency_lies_on_white():
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([0, 0, 0] * 256)
    assert colour(encoded(picture, "PNG", transparency=0)) == [255, 255, 255]


def test_an_animation_shows_its_first_frame():
    frames = [Image.new("RGB", (8, 8), shade) for shade in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.allclose(colour(data), [255, 0, 0], atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("PNG", (40, 40)),
        ("PNG", (80, 40)),
        ("JPEG", (80, 40)),
        ("JPEG", (40, 80)),
        ("WEBP", (80, 40)),
        ("TIFF", (40, 40)),
        ("TIFF", (80, 40)),
        ("TIFF", (40, 80)),
    ],
)
def test_orientation_is_honoured_as_pillow_does_it(orientation, kind, size):
    random = np.random.default_rng(1)
    picture = Image.fromarray(random.integers(0, 255, (4, 4, 3)).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = encoded(picture, kind, exif=exif, **{"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {}))
    upright = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    expected = picture if orientation == 1 else picture.transpose(Image.Transpose(upright[orientation]))
    spec = ImageSpec(size=8, crop=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    assert np.allclose(
        np.asarray(decode(turned, spec), dtype=float), np.asarray(decode(encoded(expected), spec), dtype=float), atol=12
    )


def test_damaged_exif_does_not_lose_the_picture():
    data = artifacts.picture(kind="JPEG", colour=(0, 255, 0))
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 0xFFFFFFFF) + b"rubbish"
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    assert np.allclose(colour(data[:2] + segment + data[2:]), [0, 255, 0], atol=3)


def test_the_centre_is_cut_and_the_rest_is_not_seen():
    picture = Image.new("RGB", (100, 60), "white")
    picture.paste((10, 20, 30), (30, 10, 70, 50))
    spec = ImageSpec(size=4, crop=0.5, mean=(0, 0, 0), std=(1, 1, 1), interpolation="box")
    assert tensor(encoded(picture), spec=spec)[0].tolist() == [[[float(one)] * 4] * 4 for one in (10, 20, 30)]


def test_values_are_normalised_and_laid_out():
    spec = ImageSpec(size=4, crop=1.0, mean=(100, 50, 0), std=(2, 5, 10), layout="NHWC")
    made = tensor(artifacts.picture(colour=(120, 60, 30)), spec=spec)
    assert made.shape == (1, 4, 4, 3)
    assert np.allclose(made[0, 0, 0], [10, 2, 3])
    assert tensor(artifacts.picture(colour=(120, 60, 30))).shape == (1, 3, 4, 4)


@pytest.mark.parametrize(("dtype", "name"), [(Dtype.FP16, "float16"), (Dtype.FP64, "float64"), (Dtype.UINT8, "uint8")])
def test_the_tensor_has_the_models_datatype(dtype, name):
    made = tensor(artifacts.picture(colour=(255, 0, 7)), signature=inner(dtype=dtype))
    assert made.dtype.name == name
    assert made[0, :, 0, 0].tolist() == [255, 0, 7]


def test_a_large_jpeg_looks_the_same_whether_decoded_small_or_whole():
    random = np.random.default_rng(5)
    picture = Image.fromarray(random.integers(0, 255, (12, 16, 3)).astype(np.uint8)).resize(
        (1600, 1200), Image.Resampling.BICUBIC
    )
    spec = ImageSpec(size=64)
    quick = np.asarray(decode(encoded(picture, "JPEG", quality=95), spec), dtype=float)
    exact = np.asarray(decode(encoded(picture, "PNG"), spec), dtype=float)
    assert np.abs(quick - exact).mean() < 3


def test_a_header_that_announces_too_many_pixels_is_refused_before_decoding():
    with pytest.raises(BadImageError, match="60000 x 60000"):
        tensor(artifacts.huge_png())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_cut_picture_names_its_row(kind):
    random = np.random.default_rng(2)
    noise = Image.fromarray(random.integers(0, 255, (64, 64, 3)).astype(np.uint8))
    good, cut = artifacts.picture(kind=kind), encoded(noise, kind)[:-3000]
    with pytest.raises(BadImageError) as bad:
        tensor(good, cut)
    assert bad.value.row == 1


@pytest.mark.parametrize("value", [None, "text", b"", b"not a picture"])
def test_what_is_no_picture_names_its_row(value):
    with pytest.raises(BadImageError) as bad:
        tensor(artifacts.picture(), artifacts.picture(), value)
    assert bad.value.row == 2


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(FORMATS), data=st.data())
def test_a_damaged_picture_is_decoded_or_refused_but_never_raises_anything_else(kind, data):
    content = bytearray(artifacts.picture(kind=kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        made = tensor(bytes(content))
    except BadImageError:
        return
    assert made.shape == (1, 3, 4, 4)


@pytest.mark.parametrize(
    ("spec", "signature", "words"),
    [
        (PLAIN, Signature((TensorSpec("a", Dtype.FP32, (-1, 3)),)), r"\[-1, 3\]"),
        (PLAIN, Signature((TensorSpec("a", Dtype.FP32, (-1,)), TensorSpec("b", Dtype.FP32, (-1,)))), "has 2"),
        (PLAIN, inner(size=8), "8"),
        (PLAIN, inner(layout="NHWC"), "NCHW"),
        (PLAIN, inner(channels=1), r"\[-1, 1, 4, 4\]"),
        (PLAIN, inner(dtype=Dtype.INT64), "INT64"),
        (ImageSpec(size=4, layout="CHW"), inner(), "layout"),
        (ImageSpec(size=4, interpolation="magic"), inner(), "interpolation"),
        (ImageSpec(size=4, activation="relu"), inner(), "activation"),
        (ImageSpec(size=0), inner(), "size"),
        (ImageSpec(size=4, crop=0), inner(), "crop"),
        (ImageSpec(size=4, std=(1, 0, 1)), inner(), "std"),
        (ImageSpec(size=4, activation="softmax"), Signature(inner().inputs, ()), "softmax"),
    ],
)
def test_a_preparation_that_does_not_fit_the_model_is_refused(spec, signature, words):
    with pytest.raises(CannotLoad, match=words) as refused:
        Pictures(spec, signature)
    assert refused.value.reason is Reason.PREPROCESS_MISMATCH


def test_a_model_with_open_sizes_takes_any():
    Pictures(PLAIN, Signature((TensorSpec("pixels", Dtype.FP32, (-1, -1, -1, -1)),), (SCORES,)))


def test_softmax_is_applied_to_the_scores_and_to_nothing_else():
    outputs = {"scores": np.array([[0.0, 0.0]], dtype=np.float32), "other": np.array([7.0])}
    spec = ImageSpec(size=4, activation="softmax")
    made = Pictures(spec, inner()).activated(outputs)
    assert made["scores"].tolist() == [[0.5, 0.5]]
    assert made["other"].tolist() == [7.0]
    assert Pictures(PLAIN, inner()).activated(outputs) is outputs


def test_from_outside_there_is_one_input_of_pictures():
    facts = Pictures(PLAIN, inner()).facts(ModelFacts(inner(), "f", "1"))
    assert facts.signature.layout is Layout.IMAGE
    assert facts.signature.inputs == (TensorSpec("image", Dtype.BYTES, (-1,)),)
    assert facts.signature.outputs == (SCORES,)


def test_only_the_decoders_of_allowed_formats_are_loaded():
    code = (
        "import sys, io\n"
        "from modelkeep.contracts.signature import *\n"
        "from modelkeep.sandbox.imaging import Pictures, decode\n"
        "Pictures(ImageSpec(size=4), Signature((TensorSpec('p', Dtype.FP32, (-1, 3, 4, 4)),)))\n"
        "before = set(sys.modules)\n"
        "decode(sys.stdin.buffer.read(), ImageSpec(size=4))\n"
        "print(sorted(n for n in sys.modules if n.endswith('ImagePlugin')), set(sys.modules) - before)"
    )
    picture = artifacts.picture(kind="WEBP")
    done = subprocess.run([sys.executable, "-c", code], input=picture, capture_output=True, check=True)
    decoders = ["Bmp", "Gif", "Jpeg", "Png", "Ppm", "Tiff", "WebP"]  # Ppm is one of those that Pillow starts with
    assert done.stdout.decode().strip() == f"{[f'PIL.{name}ImagePlugin' for name in decoders]} set()"
