"""Frames survive every input: what is valid comes back as it was, what is not is a `FrameError` and nothing else."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.signature import Dtype
from modelkeep.sandbox import frames

NUMBERS = [dtype.numpy for dtype in Dtype if dtype is not Dtype.BYTES]
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
TEXTS = st.lists(st.one_of(st.none(), st.text(), st.binary()), max_size=6)


def texts(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


TENSORS = st.dictionaries(
    st.text(max_size=8),
    st.one_of(
        st.sampled_from(NUMBERS).flatmap(lambda dtype: arrays.arrays(dtype, SHAPES)),
        TEXTS.map(texts),
    ),
    max_size=4,
)
MESSAGES = st.one_of(
    st.builds(frames.Run, st.integers(0, 2**63)),
    st.builds(frames.Result, st.integers(0, 2**63), st.floats(0, 9), st.floats(0, 9), st.integers(0, 2**40)),
)


def whole(message, tensors=None):
    return b"".join(bytes(piece) for piece in frames.encode(message, tensors))


@given(message=MESSAGES, tensors=TENSORS)
def test_what_is_sent_is_what_arrives(message, tensors):
    (frame,) = frames.Splitter().feed(whole(message, tensors))
    arrived, got = frames.decode(frame)
    assert msgspec.structs.replace(arrived, tensors=()) == message
    assert list(got) == list(tensors)
    for name, array in tensors.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        if array.dtype == object:
            assert got[name].tolist() == array.tolist()
        else:
            assert got[name].tobytes() == np.ascontiguousarray(array).tobytes()


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_a_frame_error_or_a_frame(data):
    try:
        frames.decode(data)
    except frames.FrameError:
        return


@settings(max_examples=300)
@given(message=MESSAGES, tensors=TENSORS, data=st.data())
def test_a_damaged_frame_is_a_frame_error_or_another_frame(message, tensors, data):
    frame = bytearray(whole(message, tensors)[4:])
    for _ in range(data.draw(st.integers(1, 5))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(frame)))
    for one in (bytes(frame), bytes(frame[:cut])):
        try:
            frames.decode(one)
        except frames.FrameError:
            continue


HEADS = st.builds(
    frames.TensorHead,
    st.text(max_size=4),
    st.sampled_from(Dtype),
    st.lists(st.one_of(st.integers(-2, 4), st.integers(-(2**63), 2**64 - 1)), max_size=20).map(tuple),
    st.one_of(st.integers(0, 64), st.integers(-(2**63), 2**64 - 1)),
)


@settings(max_examples=500)
@given(heads=st.lists(HEADS, max_size=3), body=st.binary(max_size=64))
def test_impossible_shapes_and_sizes_are_frame_errors(heads, body):
    head = msgspec.msgpack.encode(frames.Run(1, tuple(heads)))
    try:
        frames.decode(len(head).to_bytes(4, "little") + head + body)
    except frames.FrameError:
        return


@pytest.mark.parametrize("shape", [(0, 2**62), (2**62, 0, 2**62), (2**63 + 1, 0)])
def test_an_empty_tensor_with_axes_beyond_any_memory_is_a_frame_error(shape):
    head = msgspec.msgpack.encode(frames.Run(1, (frames.TensorHead("x", Dtype.FP64, shape, 0),)))
    with pytest.raises(frames.FrameError):
        frames.decode(len(head).to_bytes(4, "little") + head)


def test_two_tensors_of_one_name_are_a_frame_error():
    one = frames.TensorHead("x", Dtype.UINT8, (1,), 1)
    head = msgspec.msgpack.encode(frames.Run(1, (one, one)))
    with pytest.raises(frames.FrameError):
        frames.decode(len(head).to_bytes(4, "little") + head + b"ab")


@given(messages=st.lists(MESSAGES, min_size=1, max_size=5), data=st.data())
def test_the_splitter_finds_the_same_frames_however_the_stream_is_cut(messages, data):
    stream = b"".join(whole(message) for message in messages)
    splitter, found = frames.Splitter(), []
    at = 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        found += splitter.feed(stream[at : at + size])
        at += size
    assert [frames.decode(frame)[0] for frame in found] == messages


def test_a_length_over_the_cap_is_refused_before_anything_is_kept():
    with pytest.raises(frames.FrameError, match="cap"):
        list(frames.Splitter(max_frame=1000).feed((1001).to_bytes(4, "little")))


def test_a_frame_over_the_cap_is_not_sent(monkeypatch):
    monkeypatch.setattr(frames, "MAX_FRAME", 100)
    with pytest.raises(frames.FrameError, match="cap"):
        frames.encode(frames.Run(1), {"x": np.zeros(200, dtype=np.uint8)})


def test_reasons_travel_by_their_codes():
    message, _tensors = frames.decode(whole(frames.LoadFailed(Reason.TRUNCATED, "cut"))[4:])
    assert message == frames.LoadFailed(Reason.TRUNCATED, "cut")
