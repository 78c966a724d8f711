"""What a scanner says of pickles is told, whatever they are packed in; what it cannot read, it says nothing of."""

import gzip
import os
import pickle

import joblib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import artifacts
from modelkeep.sandbox.advice import MOST_BYTES, advice


class Runs:
    def __reduce__(self):
        return os.system, ("true",)


HOSTILE = pickle.dumps(Runs())


def packed(tmp_path, how):
    joblib.dump(Runs(), tmp_path / "m", compress=how)
    return (tmp_path / "m").read_bytes()


@pytest.mark.parametrize("how", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_what_a_file_names_is_told_however_joblib_packed_it(tmp_path, how):
    assert "posix.system" in advice(packed(tmp_path, how), {})


def test_a_file_in_an_archive_is_looked_at():
    assert "posix.system" in advice(b"", {"a/model.pkl": memoryview(HOSTILE), "b.txt": b"words"})


def test_a_plain_model_gives_no_cause():
    assert advice(artifacts.as_joblib(artifacts.classifier()), {}) == ""


def test_of_many_names_a_few_are_told():
    from picklescan import scanner

    names = [name for name in sorted(scanner._unsafe_globals) if scanner._unsafe_globals[name] == "*"][:9]
    said = advice(b"".join(f"c{name}\nx\n0".encode() for name in names) + b"N.", {})
    assert "and 4 more" in said
    assert said.count(",") == 4


def test_only_the_beginning_is_looked_at():
    late = pickle.dumps(b"x" * MOST_BYTES)[:-1] + HOSTILE[2:]
    assert advice(late, {}) == ""


@given(st.binary(max_size=200), st.integers(0, len(HOSTILE)))
def test_nothing_that_is_damaged_is_an_error(junk, at):
    advice(junk, {})
    advice(HOSTILE[:at] + junk, {"a": junk})
    advice(gzip.compress(HOSTILE)[:at] + junk, {})
