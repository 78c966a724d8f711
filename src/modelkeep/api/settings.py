"""What can be set about the control plane's HTTP door."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from modelkeep.contracts.auth import LdapSettings, OidcSettings


@dataclass(frozen=True)
class ApiSettings:
    """The REST API."""

    max_upload_mb: Annotated[
        int, "Largest model file that may be uploaded, in MiB; larger ones are refused with 413.", Interval(ge=1, le=16_777_216)
    ] = 10240
    max_sample_mb: Annotated[
        int, "Largest sample or labels file that may come with a model, in MiB.", Interval(ge=1, le=1024)
    ] = 16
    max_calibration_mb: Annotated[
        int, "Largest file of calibration rows that may come with a model, in MiB.", Interval(ge=1, le=1024)
    ] = 128
    events_poll_s: Annotated[
        float, "How often the events of a version look for a change, in seconds.", Interval(ge=0.01, le=60)
    ] = 0.25


@dataclass(frozen=True)
class AuthSettings:
    """How people come in."""

    registration: Annotated[
        Literal["off", "invite", "open"],
        "Who may register: nobody, for administrators add people (off), who was invited (invite), or anyone (open).",
    ] = "off"
    browser_idle_minutes: Annotated[
        int, "After how many minutes without a refresh a browser's session ends.", Interval(ge=5, le=10_080)
    ] = 60
    browser_hours: Annotated[int, "After how many hours a browser's session ends in any case.", Interval(ge=1, le=720)] = 12
    known_passwords_file: Annotated[
        str,
        "File with passwords that nobody may take, one a line in UTF-8, beside those that are refused anyway; empty for none.",
    ] = ""
    oidc: Annotated[
        tuple[OidcSettings, ...], "OpenID providers that people, and services, come in by; in the environment as JSON."
    ] = ()
    ldap: Annotated[tuple[LdapSettings, ...], "Directories (LDAP) that people come in by; in the environment as JSON."] = ()
