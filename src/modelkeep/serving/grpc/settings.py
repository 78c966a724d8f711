"""What a server process is told of its gRPC port. There is nothing secret in it: keys of TLS are named by their files."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GrpcAddress:
    """Where to listen (`127.0.0.1:8001`), and the PEM files of TLS: without a certificate there is none.

    `client_ca`: callers must show a certificate that one of these authorities has signed.
    """

    address: str
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
