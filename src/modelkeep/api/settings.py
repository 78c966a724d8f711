"""What can be set about the control plane's HTTP door."""

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class ApiSettings:
    """The REST API."""

    max_upload_mb: Annotated[int, "Largest model file that may be uploaded, in MiB; larger ones are refused with 413."] = 10240
    max_sample_mb: Annotated[int, "Largest sample or labels file that may come with a model, in MiB."] = 16
    events_poll_s: Annotated[float, "How often the events of a version look for a change, in seconds."] = 0.25
