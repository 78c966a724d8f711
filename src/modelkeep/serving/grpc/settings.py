"""What a server process is told of its gRPC port."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GrpcAddress:
    """Where to listen: `127.0.0.1:8001`; and after how long a connection is made anew, in seconds."""

    address: str
    connection_s: float = 60.0
