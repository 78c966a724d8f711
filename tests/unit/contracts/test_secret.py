"""A secret shows itself nowhere but where it is asked to."""

import copy
import json
import logging
import pickle
import traceback
from dataclasses import asdict, dataclass
from io import StringIO
from pprint import pformat

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.secret import Secret, hidden_again, hidden_in
from modelkeep.infra import telemetry
from modelkeep.infra.redaction import without_secrets
from modelkeep.infra.settings import LogSettings

TEXTS = st.text(min_size=1, max_size=40).map(lambda text: f"S3CRET{text}")


@dataclass(frozen=True)
class Holder:
    """Something that has a secret."""

    secret: Secret
    name: str = "holder"


class Told(msgspec.Struct):
    """The same, as msgspec knows it."""

    secret: Secret


def raised(secret: Secret) -> str:
    """The traceback of an error that was given a secret, as it is printed."""
    try:
        raise ValueError(secret, Holder(secret), f"because of {secret}")  # noqa: TRY301 - it is the traceback that is looked at
    except ValueError as error:
        return "".join(traceback.format_exception(error))


@given(TEXTS)
def test_no_way_of_writing_it_shows_it(text: str) -> None:
    secret = Secret(text)
    inside = [secret, (secret,), {"secret": secret}, {secret: 1}, Holder(secret), Told(secret), asdict(Holder(secret))]
    shown = [str(secret), f"{secret}", f"{secret!r}", f"{secret!s:>40}", "%s %r" % (secret, secret), f"{secret}".format()]  # noqa: UP031
    shown += [written for one in inside for written in (str(one), repr(one), pformat(one))]
    shown += [raised(secret), str(without_secrets({"value": secret, "more": inside})), str(dir(secret))]
    assert "S3CRET" not in " ".join(shown)
    assert secret.reveal() == text


@given(TEXTS)
def test_what_would_write_it_down_whole_refuses(text: str) -> None:
    secret = Secret(text)
    for write in (pickle.dumps, json.dumps, msgspec.json.encode, msgspec.msgpack.encode, vars):
        for one in (secret, [secret]) if write is not vars else (secret,):
            with pytest.raises((TypeError, NotImplementedError)) as refused:
                write(one)
            assert "S3CRET" not in str(refused.value)


def test_no_line_of_a_log_shows_it(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    del caplog
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for kind in ("text", "json"):
        out = StringIO()
        monkeypatch.setattr("sys.stderr", out)
        try:
            telemetry.configure(LogSettings(format=kind), role="test")  # type: ignore[arg-type]
            secret = Secret("S3CRET")
            structlog.get_logger("ours").warning("an_event", value=secret, holder=Holder(secret))
            logging.getLogger("theirs").warning("a line with %s and %r", secret, Holder(secret))
            try:
                raise ValueError(secret)  # noqa: TRY301 - as above
            except ValueError:
                structlog.get_logger("ours").exception("failed")
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            structlog.configure(**before)
        assert out.getvalue().count("ValueError") >= 1
        assert "S3CRET" not in out.getvalue()


def test_it_stays_a_value() -> None:
    one, other = Secret("a"), Secret("a")
    assert one == other
    assert hash(one) == hash(other)
    assert one != Secret("b")
    assert one != "a"
    assert (bool(one), bool(Secret(""))) == (True, False)
    assert copy.deepcopy([one])[0] is copy.copy(one) is one
    with pytest.raises(AttributeError, match="does not change"):
        one._text = "b"


@given(TEXTS)
def test_the_channel_to_a_process_of_ours_hands_it_over(text: str) -> None:
    sent = msgspec.json.encode(Holder(Secret(text)), enc_hook=hidden_in)
    assert msgspec.json.decode(sent, type=Holder, dec_hook=hidden_again) == Holder(Secret(text))
    with pytest.raises(NotImplementedError):
        hidden_in(object())
    with pytest.raises(NotImplementedError):
        msgspec.json.decode(b'{"secret": 1}', type=Holder, dec_hook=hidden_again)
