"""Whom this server answers for, and whose pages may read its answers."""

import pytest

from modelkeep.serving.edge import Edge, HostUnknown
from modelkeep.serving.messages import Request

ORIGIN = "https://app.example.org"


def asked(host: str | None = None, **headers: str) -> Request:
    given = [(b"host", host.encode())] if host is not None else []
    return Request(
        "GET", "/", [*given, *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())]
    )


def answers(edge: Edge, host: str | None) -> bool:
    try:
        edge.check(asked(host))
        edge.check(asked(host))  # found again
    except HostUnknown:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "localhost",
        "LOCALHOST:8080",
        "127.0.0.1",
        "127.0.0.1:80",
        "[::1]:8080",
        "[fe80::1]",
        "10.1.2.3:9",
        "localhost.",
    ],
)
def test_addresses_and_this_machine_are_always_answered_for(host: str | None) -> None:
    assert answers(Edge(hosts=()), host)


def test_the_name_of_this_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Box.inner.example")
    assert answers(Edge(hosts=()), "box.inner.example:8080")
    assert answers(Edge(hosts=()), "box")
    assert not answers(Edge(hosts=()), "other.inner.example")


REBOUND = [
    *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.1@evil.example", "evil.example#127.0.0.1"),
    *(
        "0x7f000001.evil",
        "evil.example:127",
        "xlocalhost",
        "localhost@evil",
        "models.example.org.evil.example",
        "127.0.0.1 evil",
    ),
]


@pytest.mark.parametrize("host", REBOUND)
def test_a_name_that_is_not_ours_is_refused_and_with_the_check_off_it_is_answered(host: str) -> None:
    edge = Edge(hosts=("models.example.org",))
    assert not answers(edge, host)
    assert not edge.known
    assert answers(Edge(hosts=("*",)), host)  # the control


def test_named_hosts_are_answered_for_and_so_is_a_domain() -> None:
    edge = Edge(hosts=("models.example.org", " *.inner.example", ""))
    assert [answers(edge, host) for host in ("Models.Example.org:443", "a.inner.example", "a.b.inner.example")] == [True] * 3
    assert not answers(edge, "inner.example")
    assert not answers(edge, "x.example.org")


def test_names_of_the_certificate_are_answered_for_as_long_as_it_is_that() -> None:
    edge = Edge(hosts=())
    edge.certify(frozenset({"a.example", "*.b.example"}))
    assert [answers(edge, host) for host in ("a.example", "x.b.example")] == [True, True]
    assert not answers(edge, "x.y.b.example")
    edge.certify(frozenset({"c.example"}))
    assert not answers(edge, "a.example")


def test_what_is_remembered_of_hosts_is_bounded() -> None:
    edge = Edge(hosts=("*.example",))
    assert all(answers(edge, f"h{number}.example") for number in range(3000))
    assert len(edge.known) <= 1024


@pytest.mark.parametrize(
    "origin",
    [
        "https://good.example.evil.com",
        "null",
        "HTTPS://APP.EXAMPLE.ORG",
        "http://app.example.org",
        "https://app.example.org:443",
        "https://app.example.org/",
        "https://app.example.org.evil",
        "*",
        "",
    ],
)
def test_another_origin_reads_nothing(origin: str) -> None:
    edge = Edge(origins=(ORIGIN,))
    assert edge.beside(asked(origin=origin)) == ()
    asking = Request("OPTIONS", "/", [(b"origin", origin.encode()), (b"access-control-request-method", b"POST")])
    assert edge.preflight(asking) is None


def test_an_allowed_origin_reads_answers_without_cookies() -> None:
    edge = Edge(origins=(ORIGIN,))
    said = dict(edge.beside(asked(origin=ORIGIN)))
    assert said[b"access-control-allow-origin"] == ORIGIN.encode()
    assert said[b"vary"] == b"origin"
    assert b"access-control-allow-credentials" not in said
    assert Edge().beside(asked(origin=ORIGIN)) == ()


def test_a_preflight_is_answered_and_a_plain_options_is_not_one() -> None:
    edge = Edge(origins=(ORIGIN,))
    headers = [(b"origin", ORIGIN.encode()), (b"access-control-request-method", b"POST")]
    wished = (b"access-control-request-headers", b"x-api-key, content-type")
    answer = edge.preflight(Request("OPTIONS", "/", [*headers, wished]))
    assert answer is not None
    assert answer.status == 204
    assert dict(answer.headers)[b"access-control-allow-headers"] == wished[1]
    assert b"POST" in dict(answer.headers)[b"access-control-allow-methods"]
    assert edge.preflight(Request("OPTIONS", "/", headers[:1])) is None
    assert edge.preflight(Request("POST", "/", headers)) is None


def test_what_strangers_send_is_neither_kept_for_its_length_nor_in_the_place_of_what_is_asked_for() -> None:
    edge = Edge(["models.example.org"])
    for number in range(1024):
        edge.check(asked(f"198.18.{number // 250}.{number % 250}"))
    edge.check(asked("models.example.org"))
    assert b"models.example.org" in edge.known
    edge.check(asked("127.0.0.1:" + "8" * 10_000))
    assert max(len(host or b"") for host in edge.known) <= 256


def test_a_host_is_named_with_a_port_or_without() -> None:
    assert answers(Edge(["models.example.org:8443"]), "models.example.org")
