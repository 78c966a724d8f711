"""Each kind of broken upload ends `rejected` with a code of its own, and nobody else notices."""

import json
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fixtures.installation import Installation, installed
from modelkeep.client import Invalid, Rejected


class Hangs:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("while True: pass",)


class Hoards:
    def __reduce__(self) -> tuple[object, ...]:
        return bytearray, (20 * 1024**3,)


class Signals:
    def __reduce__(self) -> tuple[object, ...]:
        return eval, ("__import__('signal').raise_signal(35)",)


class LeavesAChild:
    """A model that forks on the row [13, 13] and dies; a child would keep the runner's socket open."""

    def __reduce__(self) -> tuple[object, ...]:
        code = (
            "type('LeavesAChild', (__import__('sklearn.base').base.BaseEstimator,),"
            " {'n_features_in_': 2, '__sklearn_is_fitted__': lambda self: True, 'fit': lambda self, X: self,"
            " 'predict': lambda self, X: (__import__('os')._exit(0) if X[0][0] == 13 and __import__('os').fork()"
            " else __import__('time').sleep(60) if X[0][0] == 13 else X[:, 0])})()"
        )
        return eval, (code,)


class Dies:
    """A model whose prediction ends its process."""

    n_features_in_ = 2

    def fit(self) -> None:
        """Look fitted."""

    def __reduce__(self) -> tuple[object, ...]:
        code = (
            "type('Dies', (__import__('sklearn.base').base.BaseEstimator,),"
            " {'n_features_in_': 2, '__sklearn_is_fitted__': lambda self: True, 'fit': lambda self, X: self,"
            " 'predict': lambda self, X: __import__('os').abort()})()"
        )
        return eval, (code,)


def _model() -> bytes:
    return pickle.dumps(LogisticRegression().fit([[0.0, 0.0], [1.0, 1.0]], [0, 1]))


BROKEN: dict[str, tuple[str, Callable[[], bytes], str | None, str]] = {
    # what: (file name, content, sample, code)
    "truncated": ("m.pkl", lambda: _model()[:-40], None, "artifact_truncated"),
    "of another format": ("m.onnx", lambda: b"\x89PNG\r\n\x1a\n" + bytes(200), None, "content_unrecognised"),
    "with the wrong extension": ("m.onnx", _model, None, "format_mismatch"),
    "of the wrong shape": ("m.pkl", _model, "a,b,c\n1,2,3\n", "sample_mismatch"),
    "that hangs": ("m.pkl", lambda: pickle.dumps(Hangs()), None, "load_timeout"),
    "that dies on predict": ("m.pkl", lambda: pickle.dumps(Dies()), None, "predict_crashed"),
    "that dies of a signal without a name": ("m.pkl", lambda: pickle.dumps(Signals()), None, "load_crashed"),
    "that allocates 20 GB": ("m.pkl", lambda: pickle.dumps(Hoards()), None, "memory_limit"),
    "that is no model": ("m.pkl", lambda: pickle.dumps({"weights": [1, 2]}), None, "not_a_model"),
    "that is not fitted": ("m.pkl", lambda: pickle.dumps(LogisticRegression()), None, "not_fitted"),
    "that needs a package": ("m.pkl", lambda: b"cnot_installed_anywhere\nModel\n.", None, "missing_dependency"),
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    data = tmp_path_factory.mktemp("broken") / "data"
    with installed(data, MODELKEEP_RUNNERS__LOAD_TIMEOUT_S="3", MODELKEEP_RUNNERS__RUN_TIMEOUT_S="3") as installation:
        yield installation


@pytest.fixture(scope="module")
def faults(house: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Another model answers all the while; whatever it does not answer is collected here."""
    path = tmp_path_factory.mktemp("bystander") / "m.pkl"
    path.write_bytes(_model())
    found: list[str] = []
    stop = threading.Event()
    answered = threading.Event()

    def load() -> None:
        with house.http() as http:
            while not stop.is_set():
                answer = http.post("/api/v1/predict/bystander", json={"inputs": [[1.0, 1.0]]})
                answered.set()
                if answer.status_code != 200:
                    found.append(answer.text)

    with house.client() as client:
        client.push(path, "bystander")
    thread = threading.Thread(target=load)
    thread.start()
    assert answered.wait(10)
    yield found
    stop.set()
    thread.join()


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_upload_ends_with_its_own_code(what: str, house: Installation, faults: list[str], tmp_path: Path) -> None:
    filename, content, sample, code = BROKEN[what]
    path = tmp_path / filename
    path.write_bytes(content())
    if sample is not None:
        (tmp_path / "sample.csv").write_text(sample)
    with house.client() as client, pytest.raises(Rejected) as rejected:
        client.push(path, "broken", sample=tmp_path / "sample.csv" if sample else None)
    rejection = rejected.value.version.rejection
    assert rejection is not None
    assert rejection.code == code, rejection
    assert rejection.advice
    assert str(tmp_path) not in json.dumps([rejection.detail, rejection.advice])
    assert faults == []


def test_what_shows_at_once_is_refused_at_once(house: Installation, tmp_path: Path) -> None:
    (tmp_path / "empty.pkl").write_bytes(b"")
    (tmp_path / "m.h5").write_bytes(b"\x89HDF\r\n")
    with house.client() as client:
        for name in ("empty.pkl", "m.h5"):
            with pytest.raises(Invalid):
                client.push(tmp_path / name, "broken")


def test_the_same_kinds_whole_are_accepted(house: Installation, tmp_path: Path) -> None:
    """The control: what was refused above was refused for its fault."""
    (tmp_path / "m.pkl").write_bytes(_model())
    (tmp_path / "sample.csv").write_text("a,b\n1,2\n")
    with house.client() as client:
        assert client.push(tmp_path / "m.pkl", "whole", sample=tmp_path / "sample.csv").state == "ready"
        assert np.asarray(client.predict("whole", [[1.0, 1.0]]).outputs["label"]).tolist() == [1]


def test_a_model_cannot_leave_a_child_behind(house: Installation, tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(LeavesAChild()))
    with house.client() as client, house.http() as http:
        client.push(tmp_path / "m.pkl", "forks")
        poison = http.post("/api/v1/predict/forks", json={"inputs": [[13.0, 0.0]]})
        assert poison.json()["code"] == "model_failed", poison.text
        assert client.predict("forks", [[7.0, 0.0]]).outputs["value"][0] == 7.0
