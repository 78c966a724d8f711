"""Messages of an upgrade, on the channels of `control`: between two supervisors, and between each of them and its servers.

See `app/succession.py` and `app/takeover.py` for their order.
"""

import msgspec


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: accept callers from now on."""


class Tell(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: read the newest snapshot, and say how you stand."""


class Coverage(msgspec.Struct, frozen=True, tag=True):
    """Server: the snapshot that it has applied, and version ids by deployment, or deployment@alias.

    `answering` are those that answer now, `targets` those that are to.
    """

    snapshot: int
    answering: dict[str, str]
    targets: dict[str, str]


class Yield(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: another process accepts in your place. Accept nobody any more, and have your callers leave.

    Of those that listen on the port of gRPC, the first `behind` are to be spared by new callers.
    """

    behind: int = 0


class Yielded(msgspec.Struct, frozen=True, tag=True):
    """Server: nobody new is accepted here."""


class Left(msgspec.Struct, frozen=True, tag=True):
    """Server: all callers have left."""


class Resume(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: nobody came of it who accepts in your place: go on."""


class Alone(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: those whose place you took have gone."""


class Given(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to its successor: what comes with this is the descriptor of that name."""

    name: str


class Offer(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to its successor: all descriptors have been given; this is what else there is to know.

    `form` numbers these messages, of which two releases have to think alike. `generation`, 0 or 1, is whose names in the data
    directory the successor's processes do not use. `process` is the id of who offers, `rpcs` the address of gRPC ("" for none),
    `worker` the name under which jobs are worked on, and `held_bytes` what runners hold already.
    """

    form: int
    generation: int
    process: int
    rpcs: str
    worker: str
    held_bytes: int
    coverages: tuple[Coverage, ...]


class Warm(msgspec.Struct, frozen=True, tag=True):
    """Successor: its servers answer whatever the offer's did."""


class Frozen(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to its successor: there will be no newer snapshot from here; so the servers stand."""

    coverages: tuple[Coverage, ...]


class Accepting(msgspec.Struct, frozen=True, tag=True):
    """Successor: its servers accept callers."""


class Yours(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to its successor: nobody here accepts callers any more, writes to the database or works on jobs."""


class Settled(msgspec.Struct, frozen=True, tag=True):
    """Successor: everything runs there. There is no way back."""


class Refused(msgspec.Struct, frozen=True, tag=True):
    """Supervisor or successor: nothing comes of it, for this reason."""

    reason: str
