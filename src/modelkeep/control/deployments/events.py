"""Facts about deployments."""

import msgspec


class VersionPromoted(msgspec.Struct, frozen=True):
    """A deployment now answers with this version."""

    deployment: str
    version_id: str
    revision: int
