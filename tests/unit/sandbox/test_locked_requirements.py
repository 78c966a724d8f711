"""What a `requirements.txt` locks, as people and their tools write it."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.runner import CannotLoad
from modelkeep.plugins.runners.custom.requirements import Locked, read


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("# nothing\n\n   # here\n", []),
        ("Some_Package==1.0", [Locked("some-package", "1.0")]),
        ("a==1  # why\r\nb===2\n", [Locked("a", "1"), Locked("b", "2")]),
        ("a[more]==1.0 ; python_version >= '3'\n", [Locked("a", "1.0")]),
        ("a==1.0 ; python_version < '3'\n", []),
        ("--index-url x\n-i y\n--find-links z\n--only-binary :all:\na==1", [Locked("a", "1")]),
        (
            "a==1 \\\n    --hash=sha256:AB \\\n    --hash=sha512:cd\n    # via b\nb==2\n",
            [Locked("a", "1", (("sha256", "ab"), ("sha512", "cd"))), Locked("b", "2")],
        ),
    ],
)
def test_locked_lines_are_read(text, found):
    assert read(text) == found


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a", 1),
        ("a==1\nb>=2", 2),
        ("a==1.*", 1),
        ("a==1,==2", 1),
        ("-r other.txt", 1),
        ("-e .", 1),
        ("a @ https://example.org/a.whl", 1),
        ("\n\na \\\n >=1 \\\n\n", 3),
        ("./a.whl", 1),
    ],
)
def test_what_is_not_locked_is_refused_by_its_line(text, line):
    with pytest.raises(CannotLoad, match=rf"requirements.txt, line {line}, "):
        read(text)


@given(st.text(st.sampled_from("ab=1.<>; \\\n#-[]@'\"é"), max_size=60))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(CannotLoad):
        assert all(one.name and one.version for one in read(text))
