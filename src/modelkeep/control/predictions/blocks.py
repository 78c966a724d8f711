"""Blocks: up to a thousand records of one deployment and day, compressed together, with what they are found by beside them.

A row for each record would cost more than the prediction's share of a core allows (see the decision on history in blocks).
"""

from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final, NamedTuple, TypeVar
from zlib import crc32

import msgspec
import zstandard

from modelkeep.contracts.ids import new_id
from modelkeep.contracts.prediction import NOT_READ, PredictionRecord, RecordFound
from modelkeep.control.predictions.rules import Wanted, day_of

MOST_RECORDS: Final = 1000
MOST_BYTES: Final = 4 << 20
_DAY_S: Final = 86_400
_ARRAY32: Final = b"\xdd"  # msgpack: an array whose length follows in four bytes

Record = TypeVar("Record", RecordFound, PredictionRecord)


class Block(NamedTuple):
    """One block. Ids are the smallest and the largest in it, times are Unix seconds, sizes are bytes.

    `held` is how many records there are; `versions` is a JSON list of "id number" texts, `keys` one of the ids of keys and
    users, `outcomes` a JSON object of counts; `requests` are the sorted checksums (uint32) of the request ids; `payload` is
    zstandard of a msgpack array of records, sorted by id.
    """

    id: str
    day: date
    deployment: str
    first_id: str
    last_id: str
    first_at: float
    last_at: float
    held: int
    raw_bytes: int
    size: int
    versions: str
    keys: str
    outcomes: str
    requests: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Group:
    """Records of one deployment and day, read and as they are."""

    summaries: list[RecordFound] = field(default_factory=list)
    raws: list[bytes] = field(default_factory=list)


class Gathered(NamedTuple):
    """Blocks made of raw records.

    `readable` counts the records, `unreadable` what is none; `newest_at` is about the latest record's time.
    """

    blocks: list[Block]
    readable: int
    unreadable: int
    newest_at: float


_summary: Final = msgspec.msgpack.Decoder(RecordFound)
_raws: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_facts: Final = msgspec.msgpack.Decoder(list[RecordFound])
_records: Final = msgspec.msgpack.Decoder(list[PredictionRecord])


def gather(records: Sequence[bytes]) -> Gathered:
    """Make blocks of records in any order, of any deployments and days."""
    summaries, raws = _read(records)
    groups: defaultdict[tuple[str, int], Group] = defaultdict(Group)
    days = {int(summary.at // _DAY_S) for summary in summaries}
    deployments = {summary.deployment for summary in summaries}
    if len(days) == len(deployments) == 1:
        groups[deployments.pop(), days.pop()] = Group(summaries, raws)
    else:
        for summary, raw in zip(summaries, raws, strict=True):
            group = groups[summary.deployment, int(summary.at // _DAY_S)]
            group.summaries.append(summary)
            group.raws.append(raw)
    blocks = [_pack(part) for group in groups.values() for part in _parts(group)]
    newest = max((block.last_at for block in blocks), default=0.0)
    return Gathered(blocks, len(raws), len(records) - len(raws), newest)


def merge(payloads: Iterable[bytes]) -> list[Block]:
    """Make as few blocks as possible of several of one deployment and day."""
    raws = [bytes(raw) for payload in payloads for raw in _raws.decode(zstandard.decompress(payload))]
    return gather(raws).blocks


def facts(payload: bytes, wanted: Wanted, before: str | None) -> list[RecordFound]:
    """Return the wanted records with an id below `before`, without what went in and out."""
    chosen = _choose(_facts.decode(zstandard.decompress(payload)), wanted, before)
    # what was not read would hold all bytes of the block
    return [msgspec.structs.replace(one, inputs=NOT_READ, outputs=NOT_READ) for one in chosen]


def records(payload: bytes, wanted: Wanted, before: str | None) -> list[PredictionRecord]:
    """Return the wanted records with an id below `before`, whole."""
    return _choose(_records.decode(zstandard.decompress(payload)), wanted, before)


def chosen(payload: bytes, ids: Collection[str]) -> list[RecordFound]:
    """Return the records with these ids, without what went in and out."""
    found = [one for one in _facts.decode(zstandard.decompress(payload)) if one.id in ids]
    return [msgspec.structs.replace(one, inputs=NOT_READ, outputs=NOT_READ) for one in found]


def may_hold_request(requests: bytes, request_id: str) -> bool:
    """Whether a block may hold this request, by the checksums of its requests."""
    sums, sought = memoryview(requests).cast("I"), crc32(request_id.encode())
    at = bisect_left(sums, sought)
    return at < len(sums) and sums[at] == sought


def _choose(found: list[Record], wanted: Wanted, before: str | None) -> list[Record]:
    return [record for record in found if (before is None or record.id < before) and wanted.matches(record)]


def _read(records: Sequence[bytes]) -> tuple[list[RecordFound], list[bytes]]:
    """Return the summaries of those that are records, and their bytes."""
    decode = _summary.decode
    try:
        return [decode(raw) for raw in records], list(records)
    except msgspec.MsgspecError:
        good = [raw for raw in records if _is_record(raw)]
        return [decode(raw) for raw in good], good


def _is_record(raw: bytes) -> bool:
    try:
        _summary.decode(raw)
    except msgspec.MsgspecError:
        return False
    return True


def _parts(group: Group) -> Iterator[Group]:
    """Cut a group, sorted by id, into blocks that are neither too many records nor too many bytes."""
    ids = [summary.id for summary in group.summaries]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    summaries, raws = [group.summaries[at] for at in order], [group.raws[at] for at in order]
    begin = 0
    while begin < len(raws):
        end = min(begin + MOST_RECORDS, len(raws))
        size = sum(map(len, raws[begin:end]))
        while size > MOST_BYTES and end - begin > 1:
            end -= 1
            size -= len(raws[end])
        yield Group(summaries[begin:end], raws[begin:end])
        begin = end


def _pack(group: Group) -> Block:
    summaries = group.summaries
    raw = b"".join([_ARRAY32 + len(summaries).to_bytes(4, "big"), *group.raws])
    payload = zstandard.ZstdCompressor(level=1).compress(raw)
    times = [summary.at for summary in summaries]
    requests = [crc32(summary.request_id.encode()) for summary in summaries]
    requests.sort()
    return Block(
        id=new_id("blk"),
        day=day_of(times[0]),
        deployment=summaries[0].deployment,
        first_id=summaries[0].id,
        last_id=summaries[-1].id,
        first_at=min(times),
        last_at=max(times),
        held=len(summaries),
        raw_bytes=len(raw),
        size=len(payload),
        versions=_json(sorted({f"{one} {number}" for one, number in {(one.version_id, one.version) for one in summaries}})),
        keys=_json(sorted({one.key_id for one in summaries} | {one.user for one in summaries if one.user})),
        outcomes=_json(Counter([one.outcome for one in summaries])),
        requests=array("I", requests).tobytes(),
        payload=payload,
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
