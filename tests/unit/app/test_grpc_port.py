"""The port of gRPC is held for our own processes, or refused in words before anything is started."""

import socket
from importlib.util import find_spec

import pytest

from modelkeep.app import grpc_port
from modelkeep.app.grpc_port import GrpcMissing, reserved
from modelkeep.app.listening import AddressInUse, CannotListen
from modelkeep.app.settings import ServerSettings

HOSTS = ["127.0.0.1", "0.0.0.0", *(["::1"] if socket.has_ipv6 else [])]


def free(host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def bound(host: str, port: int, *, sharing: bool) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sharing:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def test_no_port_is_none() -> None:
    with reserved(ServerSettings()) as address:
        assert address is None


@pytest.mark.parametrize("host", HOSTS)
def test_a_port_is_held_for_those_who_share_it(host: str) -> None:
    port = free(host)
    with reserved(ServerSettings(host=host, grpc_port=port)) as address:
        assert address is not None
        assert address.address == (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        with pytest.raises(OSError, match="in use"), bound(host, port, sharing=False):
            pass
        with bound(host, port, sharing=True) as first, bound(host, port, sharing=True) as second:
            first.listen()
            second.listen()
    bound(host, port, sharing=False).close()


@pytest.mark.parametrize("sharing", [False, True])
def test_a_port_that_another_has_is_refused_even_where_it_is_shared(sharing: bool) -> None:
    port = free()
    with bound("127.0.0.1", port, sharing=sharing) as other:
        other.listen()
        with pytest.raises(AddressInUse, match="--grpc-port"), reserved(ServerSettings(grpc_port=port)):
            pass


def test_an_address_of_another_machine_cannot_be_held() -> None:
    with pytest.raises(CannotListen), reserved(ServerSettings(host="192.0.2.1", grpc_port=free())):
        pass
    with pytest.raises(CannotListen), reserved(ServerSettings(host="no such name", grpc_port=free())):
        pass


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_port, "find_spec", lambda name: None if name == "grpc_health" else find_spec(name))
    with pytest.raises(GrpcMissing, match=r"pip install 'modelkeep\[grpc\]'"), reserved(ServerSettings(grpc_port=free())):
        pass
    with reserved(ServerSettings()) as address:
        assert address is None


def test_a_port_can_be_held_again_while_connections_of_before_linger() -> None:
    port = free()
    with bound("127.0.0.1", port, sharing=True) as before:
        before.listen()
        with socket.create_connection(("127.0.0.1", port)) as caller:
            accepted, _address = before.accept()
            accepted.close()  # who closes first keeps the address for a minute
            assert caller.recv(1) == b""
    with reserved(ServerSettings(grpc_port=port)) as address:
        assert address is not None
        with bound("127.0.0.1", port, sharing=True) as again:
            again.listen()
        with pytest.raises(OSError, match="in use"), bound("127.0.0.1", port, sharing=False):
            pass
