"""Facts about deployments."""

import msgspec


class SettingsChanged(msgspec.Struct, frozen=True):
    """A deployment answers with other settings."""

    deployment: str
    revision: int


class TrafficChanged(msgspec.Struct, frozen=True):
    """A deployment shares its requests out otherwise."""

    deployment: str
    revision: int


class VersionPromoted(msgspec.Struct, frozen=True):
    """A deployment now answers with this version."""

    deployment: str
    version_id: str
    revision: int


class DeploymentDeleted(msgspec.Struct, frozen=True):
    """There is no such deployment any more; its name is not given again."""

    deployment: str
