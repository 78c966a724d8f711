"""The one decision of a rollout, for every history: what has been seen, in which order, and what people did meanwhile."""

import math
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelkeep.contracts.prediction import Heartbeat
from modelkeep.contracts.traffic import Counted, Signal, Split, Traffic, TrialSeen
from modelkeep.control.deployments.rules import Deployment
from modelkeep.control.rollouts.asked import Asked, plan_of, read_step
from modelkeep.control.rollouts.errors import InvalidRollout, RolloutOver
from modelkeep.control.rollouts.judging import (
    SIGNALS,
    Gate,
    Numbers,
    ServerCounts,
    StepCounts,
    in_shadow,
    later,
    left_by,
    spending,
)
from modelkeep.control.rollouts.rules import (
    Advance,
    Decision,
    Hold,
    Mode,
    Plan,
    Promote,
    RollBack,
    Rollout,
    Seen,
    State,
    Step,
    Wait,
    advanced,
    decide,
    disturbed,
    ended,
    held,
    judged,
    look,
    paused,
    resumed,
    spread,
    traffic_of,
    trial_of,
    without,
)

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
STEPS = (Step(10.0, 5.0), Step(50.0, 10.0))


def rollout_of(plan: Plan, **changes: object) -> Rollout:
    """A rollout of version 2 after version 1 at its beginning."""
    begun = Rollout(
        id="rol_1",
        deployment="iris",
        model_id="mdl_1",
        model="iris",
        from_version_id="ver_1",
        from_version=1,
        version_id="ver_2",
        version=2,
        plan=plan,
        state=State.RUNNING,
        created_at=START,
        created_by="ada",
        changed_at=START,
        since=START,
    )
    return msgspec.structs.replace(begun, **changes)


def seen_of(rollout: Rollout, *counts: Counted, **more: object) -> Seen:
    """What one server has counted of each step, by all signals alike."""
    steps = [
        StepCounts(step.percent / 100, {"one": ServerCounts(1.0, dict.fromkeys(rollout.plan.gate.signals, one))})
        for step, one in zip(rollout.plan.steps, counts, strict=False)
    ]
    return Seen(tuple(steps), 1, **more)


def after(rollout: Rollout, decision: Decision, now: datetime) -> Rollout:
    """The rollout once this has been done to it."""
    match decision:
        case Advance():
            return advanced(rollout, 1, now)
        case Promote():
            return ended(rollout, State.PROMOTED, "", now)
        case RollBack():
            return ended(rollout, State.ROLLED_BACK, decision.reason, now)
        case Hold():
            return held(rollout, decision.reason, now)
    return rollout


GROWTH = st.tuples(st.integers(0, 400), st.sampled_from([0, 0, 0, 1, 6]), st.integers(0, 900), st.integers(0, 12))


class Lives(RuleBasedStateMachine):
    """Any rollout, with one or more servers, whose requests, time and people come in any order."""

    @initialize(
        mode=st.sampled_from(Mode),
        servers=st.integers(1, 3),
        sticky=st.sampled_from(["", "caller"]),
        bounds=st.sampled_from([{}, {"errors": 0.02, "slow": 0.02, "poor": 0.02}]),
        shadow=st.sampled_from(["", "20:3m", "100:20m"]),
    )
    def begin(self, mode: Mode, servers: int, sticky: str, bounds: dict[Signal, float], shadow: str) -> None:
        steps, slow_ms = ("10:5m", "40%:10m", "50:1h"), 200.0 if bounds else 0.0
        asked = Asked(mode, steps, patience_minutes=30.0, bounds=bounds, shadow=shadow, slow_ms=slow_ms)
        self.plan = plan_of(asked, sticky)
        self.names = [f"s{number}" for number in range(servers)]
        self.rollout = rollout_of(self.plan, servers=servers)
        self.now = START
        self.steps = [StepCounts(self.rollout.at.percent / 100, shadow=self.rollout.at.shadow)]
        self.traffic = traffic_of(self.rollout, Traffic(sticky=sticky))
        self.counts: dict[str, Counted] = {}
        self.silent: set[str] = set()
        self.history: list[tuple[Rollout, Seen, datetime, Decision]] = []
        self.shares = [] if self.rollout.at.shadow else [self.rollout.at.percent]

    def see(self) -> Seen:
        trial = f"{self.rollout.id}:{self.rollout.step}"
        beats = []
        for name in self.names:
            at = self.now - timedelta(seconds=60 if name in self.silent else 0)
            counted = TrialSeen(dict.fromkeys(self.plan.gate.signals, self.counts.get(name, Counted())))
            beats.append(Heartbeat(name, at.timestamp(), 1, {"iris": self.rollout.promoted_id}, {}, {trial: counted}))
        return look(self.rollout, self.steps, beats, self.now)

    @rule(server=st.integers(0, 2), growth=GROWTH)
    def count(self, server: int, growth: tuple[int, int, int, int]) -> None:
        name, (good, bad, others, others_bad) = self.names[server % len(self.names)], growth
        before = self.counts.get(name, Counted())
        self.counts[name] = Counted(
            before.requests + good + bad, before.bad + bad, before.others + others + others_bad, before.others_bad + others_bad
        )

    @rule(requests=st.sampled_from([10, 99, 200, 3000]))
    def all_goes_well_for_a_step(self, requests: int) -> None:
        for server in range(len(self.names)):
            self.count(server, (requests, 0, requests, requests // 100))
        self.now += timedelta(minutes=self.rollout.at.minutes)
        self.tick()

    @rule(server=st.integers(0, 2))
    def begin_anew(self, server: int) -> None:
        self.counts.pop(self.names[server % len(self.names)], None)

    @rule(server=st.integers(0, 2))
    def fall_silent_or_speak(self, server: int) -> None:
        self.silent ^= {self.names[server % len(self.names)]}

    @rule(seconds=st.integers(1, 2000))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def tick(self) -> None:
        self.now += timedelta(milliseconds=1)
        seen = self.see()
        decision = decide(self.rollout, seen, self.now)
        self.history.append((self.rollout, seen, self.now, decision))
        if not self.rollout.state.final:
            self.steps[-1] = seen.steps[-1]
            self.check(seen, decision)
        else:
            assert isinstance(decision, Wait)
        self.turn(after(self.rollout, decision, self.now))

    def check(self, seen: Seen, decision: Decision) -> None:
        numbers = judged(self.rollout, seen.steps)
        assert isinstance(decision, RollBack) == any(one.worse for one in numbers.values())
        if isinstance(decision, Advance | Promote):
            assert self.rollout.state is State.RUNNING
            assert not seen.missing
            assert not self.silent
            shadow = self.rollout.at.shadow
            if self.rollout.at.percent:
                counted = ["disagreement"] if shadow else later(self.plan.gate)
                assert all(seen.steps[-1].of(one).requests >= self.plan.least for one in counted)
            if self.plan.mode is Mode.EVIDENCE:
                assert all(numbers[one].good for one in (["disagreement"] if shadow else later(self.plan.gate)))
            if self.plan.mode is not Mode.EVIDENCE or shadow:
                assert self.rollout.elapsed_s(self.now) >= 60 * self.rollout.at.minutes

    def turn(self, changed: Rollout) -> None:
        if changed.step != self.rollout.step:
            self.steps.append(StepCounts(changed.at.percent / 100))
            self.traffic = traffic_of(changed, self.traffic)
            self.counts = {}
            self.shares.append(changed.at.percent)
        self.rollout = changed

    @precondition(lambda self: not self.rollout.state.final)
    @rule(what=st.sampled_from([paused, resumed]))
    def person(self, what: object) -> None:
        self.turn(what(self.rollout, self.now))

    @precondition(lambda self: self.rollout.state.final)
    @rule(what=st.sampled_from([paused, resumed]))
    def too_late(self, what: object) -> None:
        with pytest.raises(RolloutOver):
            what(self.rollout, self.now)
        with pytest.raises(RolloutOver):
            advanced(self.rollout, 1, self.now)

    @invariant()
    def shares_only_grow(self) -> None:
        assert self.shares == sorted(set(self.shares))

    @invariant()
    def whoever_is_in_the_shadow_answers_nobody_and_no_shadow_stays(self) -> None:
        assert (self.traffic.shadow is not None) == self.rollout.at.shadow == (not self.traffic.splits)
        assert trial_of(self.rollout, self.steps[:-1]).shadow == self.rollout.at.shadow
        assert without(self.rollout, self.traffic) == Traffic(sticky=self.plan.sticky)

    @invariant()
    def the_same_history_says_the_same(self) -> None:
        for rollout, seen, now, decision in self.history[-3:]:
            assert decide(rollout, seen, now) == decision

    @invariant()
    def an_end_has_no_clock(self) -> None:
        assert (self.rollout.ended_at is not None) == self.rollout.state.final
        assert (self.rollout.since is not None) == (self.rollout.state is State.RUNNING)


Lives.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLives = Lives.TestCase


@given(st.integers(1, 5), st.booleans(), st.integers(1, 6), st.floats(1e-6, 0.5), st.integers(1, 3), st.booleans())
def test_what_may_be_spent_is_never_more_than_there_is(
    servers: int,
    sticky: bool,
    steps: int,
    alpha: float,
    signals: int,
    shadow: bool,
) -> None:
    gate = Gate((*("errors", "slow", "poor")[:signals], *(("disagreement",) if shadow else ())), alpha=alpha)
    spent = spending(gate, servers=servers, sticky=sticky, steps=steps, shadow=shadow)
    each = max(spent.merged, spent.local) if servers == 1 else spent.merged + servers * spent.local
    before = len(in_shadow(gate)) * spent.whole if shadow else 0.0
    assert before + each * len(later(gate)) * (steps if sticky else 1) == pytest.approx(alpha)


def test_a_rollback_wins_over_all_else() -> None:
    rollout = rollout_of(Plan(Mode.CANARY, STEPS))
    bad = seen_of(rollout, Counted(500, 50, 4500, 10), missing="Server two is silent.")
    for one in (rollout, paused(rollout, START), held(rollout, "late", START)):
        assert isinstance(decide(one, bad, START + timedelta(days=9)), RollBack)


def test_it_names_the_signal_that_says_most() -> None:
    rollout = rollout_of(Plan(Mode.CANARY, STEPS))
    counts = {"errors": Counted(100, 6, 900, 0), "slow": Counted(100, 30, 900, 0), "poor": Counted(100, 0, 900, 0)}
    seen = Seen((StepCounts(0.1, {"one": ServerCounts(1.0, counts)}),), 1)
    decision = decide(rollout, seen, START)
    assert isinstance(decision, RollBack)
    assert (decision.signal, decision.numbers.bad) == ("slow", 30)


def test_a_wait_says_until_when() -> None:
    rollout = rollout_of(Plan(Mode.CANARY, STEPS, patience_minutes=55.0))
    decision = decide(rollout, seen_of(rollout, Counted()), START + timedelta(minutes=1))
    assert decision == Wait("The step lasts 5 minutes at least.", START + timedelta(hours=1))


def test_callers_that_stay_together_are_counted_by_each_server_and_step_alone() -> None:
    plain, sticky = (rollout_of(Plan(Mode.CANARY, STEPS, sticky=how), servers=2, step=1) for how in ("", "caller"))
    half = Counted(100, 12, 900, 40)
    first = StepCounts(0.1, {name: ServerCounts(1.0, {"errors": half}) for name in ("one", "two")})
    second = StepCounts(0.5, {name: ServerCounts(1.0, {"errors": Counted(100, 8, 100, 1)}) for name in ("one", "two")})
    merged, alone = (judged(one, [first, second])["errors"] for one in (plain, sticky))
    assert merged.log_e > alone.log_e == alone.log_local
    assert alone.needs > 1e300, "nothing is spent on what must not be put together"
    assert left_by([first], Gate(), sticky=True) == {}
    assert left_by([first], Gate(), sticky=False)["errors"] != (0.0,) * 6


def test_lives_of_a_server_are_added_and_old_news_is_none() -> None:
    counts = ServerCounts()
    for at, said in enumerate([Counted(10, 1, 90, 2), Counted(20, 2, 180, 2), Counted(3, 0, 20, 1)], 1):
        counts = counts.heard(TrialSeen({"errors": said}), float(at))
    assert counts.all() == {"errors": Counted(23, 2, 200, 3)}
    assert counts.lives == 2
    assert counts.heard(TrialSeen({"errors": Counted(99, 9, 99, 9)}), 3.0) is counts


def test_traffic_is_changed_by_its_own_part_alone() -> None:
    plan = Plan(Mode.BLUE_GREEN, (Step(0.0, 0.0), Step(100.0, 30.0)))
    before = Traffic(sticky="key", shadow=Split("ver_9", 5.0))
    blue = rollout_of(plan)
    assert traffic_of(blue, before).splits == (Split("ver_2", 0.0),)
    green = advanced(blue, 2, START)
    assert (green.swapped, green.promoted_id, traffic_of(green, before).splits) == (True, "ver_2", (Split("ver_1", 0.0),))
    assert without(green, traffic_of(green, before)) == before
    trial = trial_of(green, [])
    assert 0 < trial.share < 1
    assert (trial.alphas, trial.before) == ({}, {})


def test_what_servers_have_learned_to_call_slow_stays_so_in_later_steps() -> None:
    rollout = advanced(rollout_of(Plan(Mode.CANARY, STEPS)), 1, START)
    learned = StepCounts(0.1, {"one": ServerCounts(1.0, slow_ms=41.5), "two": ServerCounts(1.0, slow_ms=44.0)})
    assert trial_of(rollout, [learned]).slow_ms == 44.0
    told = msgspec.structs.replace(rollout, plan=Plan(Mode.CANARY, STEPS, Gate(slow_ms=30.0)))
    assert trial_of(told, [learned]).slow_ms == 30.0


def test_it_is_never_spread_among_fewer() -> None:
    rollout = rollout_of(Plan(Mode.CANARY, STEPS), servers=3)
    assert spread(rollout, 2) is not None
    assert (spread(rollout, 2).servers, spread(rollout, 5).servers) == (3, 5)
    assert spread(rollout, 2) == rollout


@pytest.mark.parametrize(
    ("text", "step"),
    [("5:10m", Step(5.0, 10.0)), ("0.5%:90s", Step(0.5, 1.5)), ("50:1.5h", Step(50.0, 90.0)), ("10:2d", Step(10.0, 2880.0))],
)
def test_steps_are_read(text: str, step: Step) -> None:
    assert read_step(text) == step


@given(st.text(max_size=12))
def test_what_is_no_step_is_none(text: str) -> None:
    found = read_step(text)
    assert found is None or (0 <= found.percent < 100 and math.isfinite(found.minutes))


def test_nothing_goes_forward_with_a_request_too_few_unshown_or_paused() -> None:
    late, gate = START + timedelta(hours=1), Gate(("errors",))
    canary = rollout_of(Plan(Mode.CANARY, STEPS, gate))
    assert isinstance(decide(canary, seen_of(canary, Counted(99, 0, 900, 3)), late), Wait)
    assert isinstance(decide(canary, seen_of(canary, Counted(100, 0, 900, 3)), late), Advance)
    assert isinstance(decide(paused(canary, late), seen_of(canary, Counted(100, 0, 900, 3)), late), Wait)
    shown = rollout_of(Plan(Mode.EVIDENCE, STEPS, gate))
    assert isinstance(decide(shown, seen_of(shown, Counted(900, 3, 8100, 30)), START), Wait)
    assert isinstance(decide(shown, seen_of(shown, Counted(9000, 30, 81000, 600)), START), Advance)


def shadowed(**asked: object) -> Rollout:
    """A rollout that begins in the shadow, at its beginning."""
    return rollout_of(plan_of(Asked(**{"steps": ("10:5m", "50:10m"), "shadow": "20:10m", **asked}), ""))


def in_the_shadow(rollout: Rollout, errors: Counted, otherwise: int = 0) -> Seen:
    """What one server has counted in the shadow, of as many requests for each signal."""
    counts = {"errors": errors, "poor": Counted(errors.requests, 0, errors.requests, 0)}
    counts["disagreement"] = Counted(errors.requests, otherwise, errors.requests, 0)
    return Seen((StepCounts(rollout.at.percent / 100, {"one": ServerCounts(1.0, counts)}, shadow=True),), 1)


def test_in_the_shadow_it_is_judged_by_what_it_answers_otherwise_and_by_pairs_of_which_one_is_bad() -> None:
    rollout, late = shadowed(), START + timedelta(minutes=10)
    decision = decide(rollout, in_the_shadow(rollout, Counted(60, 0, 60, 0), otherwise=30), START)
    assert isinstance(decision, RollBack)
    assert decision.signal == "disagreement"
    assert decision.reason == (
        "disagreement: 30 of 60 requests were answered otherwise or not at all in the shadow, which is more than 10.000%."
    )
    failing = decide(rollout, in_the_shadow(rollout, Counted(1000, 20, 1000, 1)), START)
    assert isinstance(failing, RollBack)
    assert failing.signal == "errors"
    for fine in (Counted(1000, 20, 1000, 20), Counted(1000, 1, 1000, 200)):
        assert isinstance(decide(rollout, in_the_shadow(rollout, fine, otherwise=90), late), Advance)


def test_whatever_rate_it_may_disagree_by_all_that_is_known_can_be_written_down() -> None:
    rollout = shadowed(bounds={"disagreement": 1.0})
    numbers = judged(rollout, in_the_shadow(rollout, Counted(900, 1, 900, 1), otherwise=400).steps)
    assert msgspec.json.decode(msgspec.json.encode(numbers), type=dict[str, Numbers]) == numbers
    assert numbers["disagreement"].good


def test_the_same_requests_are_not_held_against_it_once_for_each_server() -> None:
    rollout = shadowed()

    def seen(*bad: int) -> Seen:
        counts = ({"errors": Counted(900, each, 900, 0), "disagreement": Counted(900, 0, 900, 0)} for each in bad)
        servers = {f"s{at}": ServerCounts(1.0, one) for at, one in enumerate(counts)}
        return Seen((StepCounts(0.2, servers, shadow=True),), len(bad))

    assert isinstance(decide(rollout, seen(16), START), RollBack)
    assert isinstance(decide(rollout, seen(4, 4, 4, 4), START), Wait)
    assert isinstance(decide(rollout, seen(0, 0, 0, 20), START), RollBack)


def test_blue_and_green_are_judged_by_slowness_where_somebody_says_what_is_slow() -> None:
    assert plan_of(Asked(Mode.BLUE_GREEN), "").gate.signals == ("errors", "poor")
    assert plan_of(Asked(Mode.BLUE_GREEN, slow_ms=50.0), "").gate.signals == SIGNALS
    with pytest.raises(InvalidRollout, match="slow_ms"):
        plan_of(Asked(Mode.BLUE_GREEN, signals=("slow",)), "")


def test_it_leaves_the_shadow_with_its_time_its_requests_and_where_that_is_asked_for_a_proof() -> None:
    late = START + timedelta(minutes=10)
    for mode in Mode:
        rollout = shadowed(mode=mode)
        assert isinstance(decide(rollout, in_the_shadow(rollout, Counted(900, 0, 900, 0)), START), Wait)
        lacking = decide(rollout, in_the_shadow(rollout, Counted(99, 0, 99, 0)), late)
        assert lacking == Wait(
            "The version has been asked 99 of 100 requests in the shadow that the step needs.", lacking.until
        )
        assert isinstance(decide(rollout, in_the_shadow(rollout, Counted(900, 0, 900, 0), otherwise=50), late), Advance)
    rollout = shadowed(mode=Mode.EVIDENCE)
    unsure = decide(rollout, in_the_shadow(rollout, Counted(900, 0, 900, 0), otherwise=88), late)
    assert unsure == Wait("It is not shown yet that it answers 10.000% of the requests otherwise at most.", unsure.until)


def test_what_was_found_in_the_shadow_is_not_set_off_against_what_comes_after() -> None:
    rollout = advanced(shadowed(), 1, START)
    mended = in_the_shadow(shadowed(), Counted(5000, 0, 5000, 400), otherwise=450).steps
    counts = dict.fromkeys(SIGNALS, Counted(100, 8, 900, 2))
    seen = Seen((*mended, StepCounts(0.1, {"one": ServerCounts(2.0, counts)})), 1)
    numbers = judged(rollout, seen.steps)
    assert (numbers["errors"].requests, numbers["errors"].others_bad) == (100, 2)
    assert isinstance(decide(rollout, seen, START), RollBack)
    assert (numbers["disagreement"].requests, numbers["disagreement"].bad) == (5000, 450)
    trial = trial_of(rollout, mended)
    assert (trial.before, sorted(trial.alphas)) == ({}, ["errors", "poor", "slow"])


def test_whoever_takes_the_shadow_away_or_changes_it_ends_the_rollout_and_keeps_what_they_did() -> None:
    rollout = shadowed()
    present = Deployment("dep_1", "iris", "mdl_1", "iris", 4, START, "ada", "ver_1", 1, trial=trial_of(rollout, []))
    alone = Traffic()
    theirs = Traffic(shadow=Split("ver_2", 55.0))
    ours = traffic_of(rollout, alone)
    assert ours == Traffic(shadow=Split("ver_2", 20.0))
    assert disturbed(rollout, msgspec.structs.replace(present, traffic=ours)) == ""
    for traffic in (alone, theirs, Traffic((Split("ver_2", 1.0),), shadow=Split("ver_2", 20.0))):
        assert disturbed(rollout, msgspec.structs.replace(present, traffic=traffic))
    assert (without(rollout, ours), without(rollout, theirs)) == (alone, theirs)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"signals": ("errors", "disagreement"), "shadow": ""}, "begin the rollout there"),
        ({"signals": ("disagreement",)}, "At least one of errors, slow, poor"),
        ({"shadow": "0:5m"}, "0 < share <= 100"),
        ({"shadow": "20"}, "0 < share <= 100"),
        ({"bounds": {"disagreement": 0.0}}, "From 1e-06 to 1"),
        ({"signals": ("errors",), "bounds": {"disagreement": 0.2}}, "Not among the signals"),
    ],
)
def test_what_is_wrong_with_a_step_in_the_shadow_is_said_in_words(asked: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidRollout, match=words):
        shadowed(**asked)


def test_a_step_in_the_shadow_comes_first_and_has_its_bound() -> None:
    assert shadowed(shadow="100%:90s").plan.steps == (Step(100.0, 1.5, shadow=True), Step(10.0, 5.0), Step(50.0, 10.0))
    assert shadowed().plan.gate.bounds == {"disagreement": 0.1}
    assert shadowed(bounds={"disagreement": 0.3}).plan.gate.bounds == {"disagreement": 0.3}
    assert shadowed(signals=("errors",)).plan.gate == Gate(("errors",))
    green = shadowed(mode=Mode.BLUE_GREEN)
    assert [(one.percent, one.shadow) for one in green.plan.steps] == [(20.0, True), (0.0, False), (100.0, False)]
    assert not shadowed(shadow="100:1m").swapped
