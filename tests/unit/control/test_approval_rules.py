"""Two people, whatever the order of events: the rule of approvals against a model small enough to be seen through."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from modelkeep.contracts.access import INSTALLATION, Place, Scope
from modelkeep.contracts.errors import Invalid, ModelkeepError
from modelkeep.control.approvals.errors import ApprovalOver, SecondPersonNeeded
from modelkeep.control.approvals.rules import Act, Approval, State, Voice, approve, as_of, ask, refuse, use

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIFE = timedelta(hours=24)
PEOPLE = ("ada", "bob", "eve")
SERVICE = "ci"
ACT = Act("promotion", "deployment.promote", "dep_1", "Promote.", Scope.DEPLOYMENTS_WRITE, INSTALLATION, seen=(3, "ver_2"))
people = st.sampled_from(PEOPLE)


def asked(by: str = "ada") -> Approval:
    return ask("apr_1", ACT, voice(by), person=by != SERVICE, until=NOW + LIFE)


def voice(of: str, at: datetime = NOW, actor: str = "") -> Voice:
    return Voice(actor or f"key_{of}", of, of, at)


class Orders(RuleBasedStateMachine):
    """Approving, refusing, using, losing a role and time going by, in any order. The model is who has said yes so far."""

    @initialize(by=st.sampled_from([*PEOPLE, SERVICE]))
    def begin(self, by: str) -> None:
        self.approval, self.now = asked(by), NOW
        self.by = by
        self.said_yes: set[str] = set()
        self.able = set(PEOPLE)
        self.over = False

    @property
    def open(self) -> bool:
        return not self.over and self.now < NOW + LIFE

    @rule(who=st.sampled_from([*PEOPLE, SERVICE]))
    def approve(self, who: str) -> None:
        try:
            self.approval = approve(self.approval, voice(who, self.now), person=who != SERVICE)
        except ApprovalOver:
            assert not self.open
        except SecondPersonNeeded:
            assert who in {self.by, SERVICE}
        else:
            assert self.open
            assert who not in {self.by, SERVICE}
            self.said_yes.add(who)

    @rule(who=people)
    def refuse(self, who: str) -> None:
        try:
            self.approval = refuse(self.approval, voice(who, self.now), "no")
        except ApprovalOver:
            assert not self.open
        else:
            assert self.open
            self.over = True

    @rule(who=people)
    def lose_or_regain(self, who: str) -> None:
        self.able ^= {who}

    @rule(hours=st.sampled_from([1, 5, 23, 24]))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule()
    def use(self) -> None:
        behind = (self.said_yes & self.able) | ({self.by} - {SERVICE})
        used = use(self.approval, self.able, self.now)
        assert (used is not None) == (self.open and len(behind) >= 2)
        if used is not None:
            assert used.state is State.USED
            self.approval, self.over = used, True

    @rule()
    def look(self) -> None:
        shown = as_of(self.approval, self.now)
        assert (shown.state in {State.PENDING, State.APPROVED}) == self.open
        if self.open:
            enough = len(self.said_yes | ({self.by} - {SERVICE})) >= 2
            assert shown.state is (State.APPROVED if enough else State.PENDING)


TestOrders = Orders.TestCase


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "deletion"},
        {"action": "alias.set"},
        {"subject": "dep_2"},
        {"summary": "Other."},
        {"scope": Scope.ADMIN},
        {"place": Place("wsp_1")},
        {"seen": (4, "ver_2")},
        {"seen": (3, "ver_3")},
    ],
)
def test_whatever_differs_is_another_request(change: dict[str, object]):
    assert msgspec.structs.replace(ACT, **change).digest() != ACT.digest()
    assert msgspec.structs.replace(ACT).digest() == ACT.digest()


def test_whoever_approves_again_is_still_one_and_by_the_newer_key():
    once = approve(asked(SERVICE), voice("bob"), person=True)
    twice = approve(once, voice("bob", actor="ses_2"), person=True)
    assert [one.actor for one in twice.approved_by] == ["ses_2"]
    assert twice.state is State.PENDING
    assert use(twice, PEOPLE, NOW) is None
    assert approve(twice, voice("eve"), person=True).state is State.APPROVED


def test_what_is_over_stays_over():
    agreed = approve(asked(), voice("bob"), person=True)
    for over in (refuse(agreed, voice("eve"), "no"), use(agreed, PEOPLE, NOW)):
        assert over is not None
        assert use(over, PEOPLE, NOW) is None
        for again in (lambda one: approve(one, voice("eve"), person=True), lambda one: refuse(one, voice("eve"), "no")):
            with pytest.raises(ApprovalOver):
                again(over)


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1001])
def test_a_refusal_says_why(reason: str):
    with pytest.raises(Invalid) as refused:
        refuse(asked(), voice("bob"), reason)
    assert isinstance(refused.value, ModelkeepError)
