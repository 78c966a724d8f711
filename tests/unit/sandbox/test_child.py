"""The runner's loop, over a real socketpair, with models that behave in every way."""

import contextlib
import socket
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import artifacts
from modelkeep.contracts.runner import ModelFacts
from modelkeep.contracts.signature import Dtype, ImageSpec, Signature, TensorSpec
from modelkeep.sandbox import answering, child, control, frames
from modelkeep.sandbox.imaging import Pictures
from modelkeep.sandbox.servers import Servers

SIGNATURE = Signature((TensorSpec("x", Dtype.FP64, (-1, 2)),), (TensorSpec("y", Dtype.FP64, (-1,)),))
ROWS = np.array([[1.0, 2.0], [3.0, 4.0]])
LOADED = frames.Loaded(ModelFacts(SIGNATURE, "told", "1"), 0.1, 1, 2)


class Told:
    """A model that answers with what a function makes of the first input."""

    def __init__(self, answer):
        self.answer = answer
        self.facts = ModelFacts(SIGNATURE, "told", "1")

    def run(self, inputs):
        return self.answer(next(iter(inputs.values())))


class Client:
    """A runner's loop in a thread, the supervisor's end of its channel, and the first server's end of a socket to it."""

    def __init__(self, served):
        self.channel, far = socket.socketpair()
        self.status = []
        self.frames = []
        self.sock = self.attach()
        self.tell(control.Drain())

        def serve():
            servers = Servers(far)
            servers.greet(frames.encode(LOADED))
            with far, contextlib.closing(servers):
                self.status.append(child.serve(servers, served))

        self.thread = threading.Thread(target=serve)
        self.thread.start()
        self.splitter = frames.Splitter()

    def tell(self, message, *fds):
        socket.send_fds(self.channel, [control.pack(message, fds)], fds)

    def attach(self):
        """Attach one more server; returns its end."""
        near, far = socket.socketpair()
        with far:
            self.tell(control.Attach(), far.fileno())
        near.settimeout(10)
        return near

    def ask(self, number, **tensors):
        self.sock.sendall(run(number, **tensors))

    def run(self, number, **tensors):
        self.ask(number, **tensors)
        return self.answer()

    def answer(self):
        while True:
            while not self.frames:
                self.frames += self.splitter.feed(self.sock.recv(1 << 16))
            message, tensors = frames.decode(self.frames.pop(0))
            if not isinstance(message, frames.Loaded):
                return message, tensors

    def end(self):
        self.sock.close()
        self.thread.join(10)
        self.channel.close()
        return self.status[0]


def run(number, **tensors):
    return b"".join(bytes(one) for one in frames.encode(frames.Run(number), tensors))


def read(sock, count):
    """Read so many frames."""
    splitter, found = frames.Splitter(), []
    while len(found) < count:
        found += [frames.decode(one) for one in splitter.feed(sock.recv(1 << 18))]
    return found


@pytest.fixture
def client():
    made = []

    def client(answer, pictures=None):
        made.append(Client(answering.Served(Told(answer), pictures)))
        return made[-1]

    yield client
    for one in made:
        one.end()


def test_every_run_is_answered_by_its_number(client):
    one = client(lambda rows: {"y": rows.sum(axis=1)})
    for number in (7, 8):
        message, outputs = one.run(number, x=ROWS)
        assert message.id == number
        assert message.run_s > 0
        assert message.peak_rss > 0
        assert outputs["y"].tolist() == [3.0, 7.0]
    assert one.end() == 0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda rows: {}, "nothing"),
        (lambda rows: {"y": np.array(3.0)}, r"shape \[\]"),
        (lambda rows: {"y": rows[:1, 0]}, r"shape \[1\] for 2 rows"),
        (lambda rows: {"y": np.zeros((2, *[1] * 20))}, "rows"),
        (lambda rows: {"y": np.zeros(2, dtype=complex)}, "complex128"),
        (lambda rows: {"y": np.zeros(2, dtype="datetime64[s]")}, "datetime64"),
        (lambda rows: {"y": np.array([{}, {}], dtype=object)}, "dict"),
    ],
)
def test_an_answer_that_cannot_be_served_is_refused(client, answer, words):
    import re

    message, outputs = client(answer).run(1, x=ROWS)
    assert message.code == "output_invalid"
    assert re.search(words, message.detail)
    assert outputs == {}


@pytest.mark.parametrize(
    "array",
    [
        np.array([1.0, 2.0], dtype=">f8"),
        np.array(["a", "bc"]),
        np.array([b"a", b"b"], dtype=object),
        np.array([True, None], dtype=object),
        np.array([[1, 2], [3, 4]], dtype=np.int8).T,
    ],
    ids=["big-endian", "texts", "bytes", "mixed", "not contiguous"],
)
def test_unusual_arrays_arrive_with_their_values(client, array):
    _message, outputs = client(lambda rows: {"y": array}).run(1, x=ROWS)
    expected = [str(one) if isinstance(one, bool) else one for one in array.tolist()]
    assert outputs["y"].tolist() == expected


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("bad value"), "refused"),
        (RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions"), "refused"),
        (MemoryError("20 GiB"), "memory"),
        (RuntimeError("bad_alloc"), "memory"),
        (RuntimeError("Failed to allocate memory for requested buffer"), "memory"),
        (AssertionError(), "model_failed"),
        (RecursionError("too deep"), "model_failed"),
    ],
)
def test_what_a_model_raises_becomes_an_answer(client, error, code):
    def fail(rows):
        raise error

    one = client(fail)
    for number in (1, 2):
        message, _ = one.run(number, x=ROWS)
        assert (message.id, message.code) == (number, code)
        assert type(error).__name__ in message.detail


def test_an_answer_over_the_cap_is_refused_and_the_runner_lives_on(client, monkeypatch):
    monkeypatch.setattr(frames, "MAX_FRAME", 10_000)
    sizes = [5000, 1]
    one = client(lambda rows: {"y": np.zeros((2, sizes.pop(0)))})
    message, _ = one.run(1, x=ROWS)
    assert message.code == "output_invalid"
    assert "too large" in message.detail
    assert isinstance(one.run(2, x=ROWS)[0], frames.Result)


def test_large_answers_are_sent_piece_by_piece(client):
    large = np.random.default_rng(1).standard_normal((2, 200_000))
    _message, outputs = client(lambda rows: {"y": large}).run(1, x=ROWS)
    assert np.array_equal(outputs["y"], large)


def test_pictures_are_decoded_and_a_bad_one_is_named(client):
    pictures = Pictures(ImageSpec(size=4), Signature((TensorSpec("p", Dtype.FP32, (-1, 3, 4, 4)),)))
    one = client(lambda rows: {"y": rows.mean(axis=(1, 2, 3))}, pictures)
    batch = np.empty(2, dtype=object)
    batch[:] = [artifacts.picture(), b"none"]
    message, _ = one.run(1, image=batch)
    assert (message.code, message.row) == ("bad_image", 1)
    message, outputs = one.run(2, image=batch[:1])
    assert message.preprocess_s > 0
    assert outputs["y"].shape == (1,)


@pytest.mark.parametrize("frame", [b"\x04\0\0\0nope", b"\xff\xff\xff\xff", b""])
def test_nonsense_ends_the_loop(client, frame):
    one = client(lambda rows: {"y": rows})
    result = b"".join(bytes(piece) for piece in frames.encode(frames.Result(1, 0.1)))
    one.sock.sendall(frame or result)  # an answer is no question either
    one.thread.join(10)
    assert one.status == [child.PROTOCOL_FAULT]


@settings(max_examples=30, deadline=None)
@given(data=st.binary(min_size=1, max_size=300))
def test_no_bytes_make_the_loop_raise(data):
    one = Client(answering.Served(Told(lambda rows: {"y": rows}), None))
    one.sock.sendall(data)
    assert one.end() in {0, child.PROTOCOL_FAULT}


def test_whoever_is_attached_hears_first_that_the_model_is_loaded(client):
    one = client(lambda rows: {"y": rows})
    later = one.attach()
    with later:
        for sock in (one.sock, later):
            ((greeting, _tensors),) = read(sock, 1)
            assert greeting == LOADED


def test_each_server_gets_its_own_answers(client):
    one = client(lambda rows: {"y": rows.sum(axis=1)})
    with one.attach() as other:
        other.sendall(run(1, x=ROWS * 10) + run(2, x=ROWS * 100))
        assert one.run(1, x=ROWS)[1]["y"].tolist() == [3.0, 7.0]
        _loaded, first, second = read(other, 3)
        assert [first[1]["y"].tolist(), second[1]["y"].tolist()] == [[30.0, 70.0], [300.0, 700.0]]


def test_the_end_of_one_server_is_not_the_end_of_the_others(client):
    one = client(lambda rows: {"y": rows})
    other = one.attach()
    read(other, 1)
    one.sock.close()
    other.sendall(run(1, x=ROWS))
    assert isinstance(read(other, 1)[0][0], frames.Result)
    other.close()
    assert one.end() == 0


def test_a_server_that_is_gone_before_the_model_is_loaded_is_no_ones_loss():
    channel, far = socket.socketpair()
    servers = Servers(far)
    with channel, far, contextlib.closing(servers):
        near, attached = socket.socketpair()
        near.close()
        with attached:
            socket.send_fds(channel, [control.pack(control.Attach(), [attached.fileno()])], [attached.fileno()])
        channel.sendall(control.pack(control.Drain()))
        servers.greet(frames.encode(LOADED))
        assert servers.next() is None


def test_a_server_that_sends_nonsense_is_dropped_and_the_others_are_served(client):
    one = client(lambda rows: {"y": rows})
    with one.attach() as other:
        read(other, 1)
        one.sock.sendall(b"\x04\0\0\0nope")
        other.sendall(run(1, x=ROWS))
        assert isinstance(read(other, 1)[0][0], frames.Result)
    assert one.end() == child.PROTOCOL_FAULT


def test_a_server_that_does_not_read_its_answers_keeps_nobody_waiting(client):
    large = np.zeros((2, 1_000_000))
    one = client(lambda rows: {"y": large} if rows[0, 0] == 0 else {"y": rows})
    with one.attach() as silent:
        silent.sendall(run(1, x=ROWS * 0) + run(2, x=ROWS * 0))
        for number in range(20):
            assert isinstance(one.run(number, x=ROWS)[0], frames.Result)
        answers = read(silent, 3)
        assert [message.id for message, _tensors in answers[1:]] == [1, 2]
        assert all(np.array_equal(tensors["y"], large) for _message, tensors in answers[1:])


def test_servers_take_turns(client):
    order, started, go = [], threading.Event(), threading.Event()

    def note(rows):
        started.set()
        go.wait(10)
        order.append(int(rows[0, 0]))
        return {"y": rows}

    one = client(note)
    with one.attach() as other:
        one.ask(0, x=ROWS)
        started.wait(10)
        one.sock.sendall(b"".join(run(number, x=ROWS * 10) for number in range(8)))
        other.sendall(b"".join(run(number, x=ROWS * 20) for number in range(8)))
        go.set()
        read(other, 9)
        assert order[0] == 1
        assert all({*order[at : at + 2]} == {10, 20} for at in range(1, 15, 2)), order
        for _ in range(9):
            one.answer()


def test_the_end_of_the_channel_ends_the_runner_whoever_is_attached(client):
    one = client(lambda rows: {"y": rows})
    one.run(1, x=ROWS)
    one.channel.close()
    one.thread.join(10)
    assert one.status == [0]


def test_a_runner_that_was_not_told_to_end_waits_for_the_next_server():
    channel, far = socket.socketpair()
    servers = Servers(far)
    served = answering.Served(Told(lambda rows: {"y": rows}), None)
    status = []
    thread = threading.Thread(target=lambda: status.append(child.serve(servers, served)))
    thread.start()
    with channel, far, contextlib.closing(servers):
        for _ in range(2):
            near, attached = socket.socketpair()
            with near, attached:
                socket.send_fds(channel, [control.pack(control.Attach(), [attached.fileno()])], [attached.fileno()])
                near.sendall(run(1, x=ROWS))
                near.settimeout(10)
                assert isinstance(read(near, 1)[0][0], frames.Result)
        assert not status
        channel.close()
        thread.join(10)
    assert status == [0]
