"""What answers look like in a notebook and at a prompt. Names and texts come from strangers."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.client import (
    Deployment,
    Key,
    Listing,
    Model,
    Prediction,
    RecordedPrediction,
    Rejection,
    Replay,
    Version,
    notebook,
)

EVIL = "<script>alert('x')</script>\"&amp;</td>"
ALLOWED = {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
EVILS = [
    Model(EVIL, description=EVIL),
    Version(EVIL, 1, EVIL, format=EVIL, filename=EVIL, description=EVIL, rejection=Rejection(EVIL, EVIL, EVIL)),
    Deployment(EVIL, EVIL, 1, settings={EVIL: EVIL}),
    Key(EVIL, EVIL, [EVIL], secret="mk_secret"),
    Rejection(EVIL, EVIL, EVIL),
    Replay(EVIL, EVIL, 1, EVIL, summary={EVIL: [EVIL]}),
    RecordedPrediction(EVIL, EVIL, deployment=EVIL),
    Prediction.read({"id": EVIL, "deployment": EVIL, "model": EVIL, "version": 1, "outputs": {EVIL: [EVIL, [EVIL]]}}),
    Prediction.read({"id": "p", "deployment": "d", "model": "m", "version": 1, "outputs": {EVIL: [1], "b": [1, 2]}}),
]


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.words, self.depth = set(), set(), [], 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= set(attrs)
        self.depth += 1

    def handle_endtag(self, tag):
        self.depth -= 1

    def handle_data(self, data):
        self.words.append(data)


def assert_calm(html):
    found = Tags(html)
    assert found.tags <= ALLOWED
    assert found.attributes <= {("style", "text-align: left")}
    assert found.depth == 0
    return found


@pytest.mark.parametrize("value", [*EVILS, *([one, one] for one in EVILS)], ids=lambda value: type(value).__name__)
def test_no_text_of_strangers_becomes_markup(value):
    html = Listing(value)._repr_html_() if isinstance(value, list) else value._repr_html_()
    found = assert_calm(html)
    assert "mk_secret" not in html
    assert "<script" in "".join(found.words) or "p" in str(value)


@given(st.text(), st.lists(st.text(), min_size=1, max_size=3), st.recursive(st.text(), st.lists))
def test_no_text_at_all_becomes_markup(title, names, value):
    assert_calm(notebook.facts(title, dict.fromkeys(names, value)))
    assert_calm(notebook.table(names, [[value] * len(names)], title))


def test_a_prediction_shows_its_rows_and_how_many_are_left():
    answer = Prediction.read({"id": "p", "deployment": "d", "model": "m", "version": 1, "outputs": {"y": list(range(1000))}})
    html = answer._repr_html_()
    assert "and 980 more" in html
    assert len(html) < 5000


def test_a_long_list_and_an_empty_one_are_short():
    assert "and 80 more" in Listing([Model(f"m{n}") for n in range(100)])._repr_html_()
    assert "none" in Listing([])._repr_html_()
    assert Listing([Model("a")]) == [Model("a")]


def test_at_a_prompt_a_value_says_what_it_is_in_one_line():
    version = Version("churn", 3, "ready", format="skops", size=12, report={"latency_ms": {"1": 0.5}})
    assert repr(version) == "Version(model='churn', number=3, state='ready', format='skops', size=12)"
    assert repr(Model("churn", serving_version=2)) == "Model(name='churn', serving_version=2)"
    assert "mk_secret" not in repr(Key("k", "n", secret="mk_secret"))
    assert "\x1b" not in repr(Model("\x1b[2J"))
