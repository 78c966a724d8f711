"""No text can be taken for a missing one, whatever it is."""

from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.missing import MARK, marked

TEXTS = st.none() | st.text() | st.text(st.sampled_from([MARK, "a"]), max_size=4)


@given(TEXTS, TEXTS)
def test_different_texts_stay_different(one, other):
    assert (marked(one) == marked(other)) == (one == other)


@given(st.text().filter(lambda text: not text.startswith(MARK)))
def test_other_texts_stay_as_they_are(text):
    assert marked(text) == text
