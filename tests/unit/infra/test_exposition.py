"""The metrics page: what Prometheus' own parsers read in it is what was counted."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from modelkeep.infra.exposition import Exposition, wants_openmetrics
from modelkeep.infra.tally import Family

HITS = Family("hits_total", "counter", 'Hits, "quoted" and \\ more.', ("who", "how"))
TOOK = Family("took_seconds", "histogram", "Seconds.", ("who",), bounds=(0.5, 1.0))
AGE = Family("age_seconds", "gauge", "Age.")
ABOUT = Family("model_info", "info", "About.", ("digest",))
FAMILIES = (HITS, TOOK, AGE, ABOUT)

# a carriage return ends a line for Python's parser, though not for Prometheus; names and labels of ours never hold one
label = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from('\n\\"%s{},= '), max_size=8)
count = st.integers(0, 2**53).map(float)
number = st.floats(allow_nan=False)


def samples(page: bytes, parse) -> dict[tuple, float]:
    families = list(parse(page.decode()))
    return {(sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples}


@given(
    hits=st.dictionaries(st.tuples(label, label), count, max_size=4),
    took=st.dictionaries(label, st.tuples(count, count, count, st.floats(0, 1e12)), max_size=4),
    age=number,
    digest=label,
)
@pytest.mark.parametrize("parse", [text, openmetrics.text_string_to_metric_families], ids=["text", "openmetrics"])
def test_both_parsers_read_the_numbers_that_were_given(parse, hits, took, age, digest) -> None:
    sums = {
        HITS: {values: [number] for values, number in hits.items()},
        TOOK: {(who,): list(numbers) for who, numbers in took.items()},
        AGE: {(): [age]},
        ABOUT: {(digest,): [1.0]},
    }
    writer = Exposition()
    page = writer.page(FAMILIES, sums, openmetrics=parse is not text)
    assert writer.page(FAMILIES, sums, openmetrics=parse is not text) == page  # from what it kept
    expected: dict[tuple, float] = {("age_seconds",): age, ("model_info", ("digest", digest)): 1.0}
    for (who, how), value in hits.items():
        expected["hits_total", ("how", how), ("who", who)] = value
    for who, (low, middle, high, total) in took.items():
        expected["took_seconds_bucket", ("le", "0.5"), ("who", who)] = low
        expected["took_seconds_bucket", ("le", "1.0"), ("who", who)] = low + middle
        expected["took_seconds_bucket", ("le", "+Inf"), ("who", who)] = low + middle + high
        expected["took_seconds_count", ("who", who)] = low + middle + high
        expected["took_seconds_sum", ("who", who)] = total
    assert samples(page, parse) == expected


def test_families_without_a_number_are_left_out_and_the_others_say_what_they_are() -> None:
    page = Exposition().page(FAMILIES, {HITS: {("a", "b"): [1.0]}, TOOK: {}, ABOUT: {("d",): [1.0]}})
    assert page.decode().splitlines() == [
        '# HELP hits_total Hits, "quoted" and \\\\ more.',
        "# TYPE hits_total counter",
        'hits_total{who="a",how="b"} 1.0',
        "# HELP model_info About.",
        "# TYPE model_info gauge",
        'model_info{digest="d"} 1.0',
    ]


@pytest.mark.parametrize(("age", "shown"), [(math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN")])
def test_numbers_that_are_none_are_written_as_prometheus_does(age: float, shown: str) -> None:
    page = Exposition().page(FAMILIES, {AGE: {(): [age]}})
    assert page.decode().endswith(f"\nage_seconds {shown}\n")


def test_openmetrics_is_written_for_those_who_ask() -> None:
    assert wants_openmetrics(b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3")
    assert not wants_openmetrics(b"text/plain")
    assert not wants_openmetrics(None)
