"""Records of predictions: what servers wrote before a field was there is read as it was, and by older ones what is written."""

import msgspec

from fixtures.history import record
from modelkeep.contracts.prediction import PredictionRecord, RecordFound

WITHOUT_TRIALS = (
    b"\xdc\x00\x16\xbeprd_01J9Z3K6T2Q8W4V5R7X0Y1B2C4\xcbA\xdaU\xec\xd0 \x00\x00\xa5req_1\xa5churn\xa5ver_A\x03\xa5key_A"
    b"\xa6native\xa2ok\xa0\xcc\xc8\x02\xcb?\xf8\x00\x00\x00\x00\x00\x00\xcb\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\xcb\x00\x00\x00\x00\x00\x00\x00\x00\xb0application/json\xc4\x02{}\xc4\x02[]\xa0\xa0\xb0application/json\xa5usr_A"
)
"""What a server wrote that knew of no trials, to the byte."""


class Before(msgspec.Struct, array_like=True):
    """The beginning of a record, as a reader knows it that knows no more."""

    id: str
    at: float
    request_id: str


def test_a_record_from_before_trials_is_read_and_says_that_none_counts_it():
    expected = PredictionRecord(
        *("prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C4", 1767355200.5, "req_1", "churn", "ver_A", 3, "key_A", "native", "ok"),
        rows=2,
        total_ms=1.5,
        inputs=b"{}",
        outputs=b"[]",
        user="usr_A",
    )
    assert msgspec.msgpack.decode(WITHOUT_TRIALS, type=PredictionRecord) == expected
    found = msgspec.msgpack.decode(WITHOUT_TRIALS, type=RecordFound)
    assert (found.user, found.trial, found.unit) == ("usr_A", "", None)


def test_a_record_is_read_with_its_trial_by_both_that_read_them():
    unit = (1 << 64) - 1
    written = msgspec.msgpack.encode(record(trial="rol_1:0", unit=unit))
    for kind in (PredictionRecord, RecordFound):
        found = msgspec.msgpack.decode(written, type=kind)
        assert (found.trial, found.unit, found.user) == ("rol_1:0", unit, "")
    assert msgspec.msgpack.decode(written, type=Before).at > 0
