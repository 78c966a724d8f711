"""Which predictions are wanted, and when a prediction or a request was made, as far as its id tells."""

from datetime import UTC, date, datetime, timedelta
from typing import Final

import msgspec

from modelkeep.contracts.prediction import Outcome, PredictionRecord, RecordFound

_ALPHABET: Final = {letter: value for value, letter in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
_ULID: Final = 26
_TIME: Final = 10
AROUND_ITS_TIME_S: Final = 3600.0
_LATEST: Final = 253_000_000_000.0  # the year 9987: what a forged id says must still be a date


class Wanted(msgspec.Struct, frozen=True):
    """A filter: what is None is not asked for. `version` is a version's id or its number; times are Unix seconds.

    `key` is the id of what it was asked with, `user` that of who asked.

    `since` is included, `until` is not. `among` are the deployments of which records may be shown at all.
    """

    id: str | None = None
    request_id: str | None = None
    deployment: str | None = None
    version: str | None = None
    key: str | None = None
    user: str | None = None
    outcome: Outcome | None = None
    since: float | None = None
    until: float | None = None
    among: frozenset[str] | None = None

    def matches(self, record: RecordFound | PredictionRecord) -> bool:
        """Whether this record is wanted."""
        return (
            (self.id is None or record.id == self.id)
            and (self.request_id is None or record.request_id == self.request_id)
            and (self.deployment is None or record.deployment == self.deployment)
            and (self.version is None or self.version in {record.version_id, str(record.version)})
            and (self.key is None or record.key_id == self.key)
            and (self.user is None or record.user == self.user)
            and (self.outcome is None or record.outcome == self.outcome)
            and (self.since is None or record.at >= self.since)
            and (self.until is None or record.at < self.until)
            and (self.among is None or record.deployment in self.among)
        )

    def around_its_request(self) -> "Wanted":
        """Return a filter that looks only around the time that the request's id tells; itself where it tells none.

        A caller's own id may look like one of ours by chance or on purpose: what is not found here may still be elsewhere.
        """
        made = made_at(self.request_id) if self.request_id and self.since is None and self.until is None else None
        if made is None:
            return self
        return msgspec.structs.replace(self, since=made - AROUND_ITS_TIME_S, until=made + AROUND_ITS_TIME_S)


def made_at(prefixed: str) -> float | None:
    """Return when an id such as `prd_01J9...` was made, in Unix seconds; None for what is no such id."""
    ulid = prefixed.rpartition("_")[2]
    if len(ulid) != _ULID or not all(letter in _ALPHABET for letter in ulid):
        return None
    number = 0
    for letter in ulid[:_TIME]:
        number = number * 32 + _ALPHABET[letter]
    seconds = number / 1000
    return seconds if seconds < _LATEST else None


def day_of(at: float) -> date:
    """Return the day (UTC) of a moment in Unix seconds."""
    return datetime.fromtimestamp(at, UTC).date()


def days_around(at: float) -> tuple[date, date]:
    """Return the first and the last day on which a record made at `at` may lie: its time is taken a little later."""
    day = day_of(at)
    return day - timedelta(days=1), day + timedelta(days=1)
