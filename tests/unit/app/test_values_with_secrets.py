"""Every value that carries a secret hides it, whatever it is of."""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest

from fixtures.canaries import canary, found_in
from modelkeep.api.settings import ApiSettings
from modelkeep.app.roles import ControlRole
from modelkeep.app.settings import Settings
from modelkeep.app.supervisor import Role
from modelkeep.contracts.access import Scope
from modelkeep.contracts.secret import Secret, hidden_again, hidden_in
from modelkeep.contracts.snapshot import Limits
from modelkeep.contracts.storage import StorageSettings
from modelkeep.control.links.service import Newcomer
from modelkeep.control.sessions.rules import Tokens
from modelkeep.control.users.rules import Key
from modelkeep.control.users.service import IssuedKey
from modelkeep.infra.envelopes import MasterKeys
from modelkeep.infra.settings import DatabaseSettings, HistorySettings, LogSettings
from modelkeep.infra.site_key import SiteKey
from modelkeep.infra.tls import Certificate
from modelkeep.sandbox.control import Configure
from modelkeep.worker.settings import WorkerSettings

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PLANTED = canary("value")
URL = f"postgresql://user:{PLANTED}@host/name"


def _role() -> ControlRole:
    return ControlRole(
        data="d",
        database=DatabaseSettings(url=URL),  # type: ignore[arg-type]
        api=ApiSettings(),
        worker=WorkerSettings(),
        limits=Limits(),
        acceptable="",
        log=LogSettings(),
        history=HistorySettings(),
        storage=StorageSettings(secret_access_key=PLANTED),  # type: ignore[arg-type]
    )


MAKE: dict[str, Callable[[], object]] = {
    "database settings": lambda: DatabaseSettings(url=Secret(URL)),
    "storage settings": lambda: StorageSettings(secret_access_key=Secret(PLANTED)),
    "all settings": lambda: Settings(database=DatabaseSettings(url=Secret(URL))),
    "what a process is told": _role,
    "the same on its way": lambda: Role("api", msgspec.json.encode(_role(), enc_hook=hidden_in)),
    "the message with it": lambda: Configure(msgspec.json.encode(_role(), enc_hook=hidden_in)),
    "a key that was made": lambda: IssuedKey(Key("key_1", "usr_1", "k", b"", (Scope.PREDICT,), NOW), Secret(PLANTED)),
    "tokens": lambda: Tokens(PLANTED, PLANTED, "ses_1", NOW, NOW),
    "somebody who registers": lambda: Newcomer("ada", "ada@example.org", PLANTED),
    "a certificate": lambda: Certificate(b"", PLANTED.encode(), b"", "none", NOW, frozenset()),
    "a site key": lambda: SiteKey(PLANTED.encode(), PLANTED.encode()),
    "master keys": lambda: MasterKeys({"one": PLANTED.encode()}),
}


@pytest.mark.parametrize("name", MAKE)
def test_a_value_that_carries_a_secret_does_not_show_it(name: str) -> None:
    value = MAKE[name]()
    shown = f"{value!r} {value!s} {value} {[value]!r}"
    assert found_in(shown.encode(), (PLANTED,)) == []


def test_what_a_process_is_told_arrives_whole() -> None:
    told = msgspec.json.encode(_role(), enc_hook=hidden_in)
    role = msgspec.json.decode(told, type=ControlRole, dec_hook=hidden_again)
    assert role == _role()
    assert role.database.url.reveal() == URL
    with pytest.raises(TypeError):  # nothing writes it down by mistake
        msgspec.json.encode(_role())
