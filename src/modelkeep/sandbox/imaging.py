"""Encoded pictures as a model's input tensor, decoded inside the runner: a hostile picture meets only the model it was sent to.

Every picture ends as RGB: orientation from EXIF is honoured, transparency is laid over white, CMYK, 16-bit, palette and grey
pictures are converted. See `contracts.signature.ImageSpec` for the geometry.
"""

import importlib
import io
import math
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad, ModelFacts
from modelkeep.contracts.signature import Dtype, ImageSpec, Signature, TensorSpec
from modelkeep.sandbox.scores import score_output, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image, Transpose

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The picture formats that are decoded; of those with several frames, the first."""

_DECODERS = ("Jpeg", "Png", "WebP", "Gif", "Bmp", "Tiff")

MAX_PIXELS = 50_000_000
"""The most pixels a picture's header may announce."""

INPUT = "image"
"""Name of the one input that an image version takes."""

PICTURES = (TensorSpec(INPUT, Dtype.BYTES, (-1,)),)
"""What goes into an image version."""

_AXES = 4
_CHANNELS = 3
_ORIENTATION = 0x0112
_TRANSPARENT = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_LAYOUTS = ("NCHW", "NHWC")
_INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
_ACTIVATIONS = ("auto", "none", "softmax")
_DTYPES = frozenset({Dtype.FP16, Dtype.FP32, Dtype.FP64, Dtype.UINT8})


class BadImageError(Exception):
    """The picture of one row cannot be used."""

    def __init__(self, row: int, detail: str) -> None:
        self.row = row
        self.detail = detail
        super().__init__(f"picture {row}: {detail}")


class Pictures:
    """Prepares pictures for one model, and its scores for people."""

    def __init__(self, spec: ImageSpec, inner: Signature) -> None:
        """Check that the preparation fits the model's input; raises `CannotLoad`."""
        _check_words(spec)
        _load_decoders()
        self._spec = spec
        self._input = _fitting_input(spec, inner)
        self._scores = score_output(inner.outputs) if spec.activation == "softmax" else ""
        if spec.activation == "softmax" and not self._scores:
            raise CannotLoad(Reason.PREPROCESS_MISMATCH, "A softmax is asked for, and no output has one score a class.")
        # one multiplication and one subtraction a value: (v - mean) / std
        self._scale = (1 / np.asarray(spec.std, dtype=np.float64)).astype(np.float32)
        self._shift = (np.asarray(spec.mean, dtype=np.float64) / np.asarray(spec.std, dtype=np.float64)).astype(np.float32)

    def facts(self, inner: ModelFacts) -> ModelFacts:
        """Return the model's facts as they are outside: one input, which takes encoded pictures."""
        signature = Signature(PICTURES, inner.signature.outputs, image=True)
        return msgspec.structs.replace(inner, signature=signature)

    def tensors(self, inputs: "Mapping[str, NDArray[np.generic]]") -> "dict[str, NDArray[np.generic]]":
        """Return the model's input for the encoded pictures; raises `BadImageError` for the first that cannot be used."""
        pictures = [self._prepare(row, data) for row, data in enumerate(inputs[INPUT].reshape(-1).tolist())]
        batch = np.stack(pictures)
        if self._spec.layout == "NCHW":
            batch = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
        if self._input.dtype is Dtype.UINT8:
            batch = np.clip(np.rint(batch), 0, 255)
        return {self._input.name: batch.astype(self._input.dtype.numpy, copy=False)}

    def activated(self, outputs: "dict[str, NDArray[np.generic]]") -> "dict[str, NDArray[np.generic]]":
        """Return the outputs with the scores as probabilities, where the version's activation says so."""
        if not self._scores:
            return outputs
        return {name: softmax(array) if name == self._scores else array for name, array in outputs.items()}

    def _prepare(self, row: int, data: object) -> "NDArray[np.float32]":
        if not isinstance(data, bytes):
            raise BadImageError(row, "The picture is missing.")
        try:
            picture = decode(data, self._spec)
        except BadImageError as error:
            raise BadImageError(row, error.detail) from error
        except MemoryError:
            raise
        except Exception as error:
            # decoders raise OSError, SyntaxError, struct.error and more for pictures that are cut or forged
            raise BadImageError(row, "The picture is damaged or incomplete.") from error
        values: NDArray[np.float32] = np.asarray(picture, dtype=np.float32) * self._scale - self._shift
        return values


def decode(data: bytes, spec: ImageSpec) -> "Image":
    """Return the picture's centre as `size` x `size` RGB pixels. Raises `BadImageError`, or whatever a decoder raises."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # the check below is stricter, and no warning
    try:
        picture: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImageError(0, f"Not a picture of a known format ({', '.join(FORMATS)}).") from None
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise BadImageError(0, f"The picture has {width} x {height} pixels; at most {MAX_PIXELS} are decoded.")
    side = max(1.0, min(width, height) * spec.crop)
    enough = spec.size / side
    picture.draft(None, (math.ceil(width * enough), math.ceil(height * enough)))  # JPEG: decode at a half, quarter or eighth
    picture.load()
    orientation = _orientation(picture)  # after decoding: a TIFF is turned on the way, and then asks for no turn any more
    picture = _as_rgb(picture)
    width, height = picture.size
    side = max(1.0, min(width, height) * spec.crop)
    left, top = (width - side) / 2, (height - side) / 2
    method = Image.Resampling[spec.interpolation.upper()]
    picture = picture.resize((spec.size, spec.size), method, box=(left, top, left + side, top + side))
    turn = _turns().get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _turns() -> "dict[int, Transpose]":
    from PIL.Image import Transpose

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }


def _orientation(picture: "Image") -> int:
    """The turn that EXIF asks for; a picture with damaged EXIF is shown as it is. A centred square may be turned last."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error):
        return 1
    return value if isinstance(value, int) else 1


def _as_rgb(picture: "Image") -> "Image":
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":
        picture = Image.fromarray(_eight_bits(np.asarray(picture), picture.mode), "L")
    if picture.mode in _TRANSPARENT or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _eight_bits(values: "NDArray[np.generic]", mode: str) -> "NDArray[np.uint8]":
    """Grey values of 16 or 32 bits, or floats, as 0 to 255. Floats up to 1.0 and integers over 255 are scaled.

    Raises `BadImageError` for values that are none.
    """
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        raise BadImageError(0, "The picture has values that are no numbers (NaN), or infinite.")
    most = float(wide.max(initial=0.0))
    if mode == "F":
        factor = 255.0 if most <= 1.0 else 1.0
    elif mode.startswith("I;16") or most > 255:  # noqa: PLR2004 - more than eight bits hold
        factor = 255.0 / 65535.0
    else:
        factor = 1.0
    return np.clip(np.rint(wide * factor), 0, 255).astype(np.uint8)


def _load_decoders() -> None:
    """Load the decoders of the allowed formats before the first picture comes, and not Pillow's forty others."""
    from PIL import Image

    Image.preinit()  # the usual ones, which Pillow itself would load with the first picture
    for name in _DECODERS:
        importlib.import_module(f"PIL.{name}ImagePlugin")


def _check_words(spec: ImageSpec) -> None:
    if spec.layout not in _LAYOUTS:
        raise CannotLoad(Reason.PREPROCESS_MISMATCH, f"The layout is one of {', '.join(_LAYOUTS)}.")
    if spec.interpolation not in _INTERPOLATIONS:
        raise CannotLoad(Reason.PREPROCESS_MISMATCH, f"The interpolation is one of {', '.join(_INTERPOLATIONS)}.")
    if spec.activation not in _ACTIVATIONS:
        raise CannotLoad(Reason.PREPROCESS_MISMATCH, f"The activation is one of {', '.join(_ACTIVATIONS)}.")
    if spec.size < 1 or not 0 < spec.crop <= 1 or 0 in spec.std:
        raise CannotLoad(Reason.PREPROCESS_MISMATCH, "The size is at least 1, the crop over 0 and at most 1, and no std is 0.")


def _fitting_input(spec: ImageSpec, inner: Signature) -> TensorSpec:
    if len(inner.inputs) != 1:
        raise CannotLoad(Reason.PREPROCESS_MISMATCH, f"An image model has one input; this one has {len(inner.inputs)}.")
    one = inner.inputs[0]
    made = (_CHANNELS, spec.size, spec.size) if spec.layout == "NCHW" else (spec.size, spec.size, _CHANNELS)
    fits = len(one.shape) == _AXES and all(want in {-1, got} for want, got in zip(one.shape[1:], made, strict=True))
    if not fits or one.dtype not in _DTYPES:
        raise CannotLoad(
            Reason.PREPROCESS_MISMATCH,
            f"The preprocessing makes {spec.layout} pictures of shape {[-1, *made]}; "
            f"the model's input {one.name!r} takes {one.dtype} {list(one.shape)} (-1 is any length).",
        )
    return one
