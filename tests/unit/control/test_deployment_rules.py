"""What a promotion changes, and what a snapshot holds."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.prediction import Heartbeat
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import RunnerSpec, ServedVersion, decode_snapshot, encode_snapshot
from modelkeep.control.deployments import rules
from modelkeep.control.deployments.errors import CannotBeServed, DeploymentStale
from modelkeep.control.deployments.rules import Deployment

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEW = Deployment("dep_1", "m", "mdl_1", "m", 0, NOW, "ada")
SIGNATURE = Signature((TensorSpec("x", Dtype.FP32, (-1, 2)),))


def _served(version_id: str) -> ServedVersion:
    return ServedVersion(version_id, "m", 1, RunnerSpec(version_id, "0" * 64, 1, "onnx", "onnx"), SIGNATURE)


def test_a_promotion_moves_on_by_one_revision_and_remembers_the_version_before():
    later = NOW + timedelta(hours=1)
    first = rules.promote(NEW, "ver_1", 1, expected=0, by="ada", now=NOW)
    assert first is not None
    second = rules.promote(first, "ver_2", 2, expected=None, by="bob", now=later)
    assert second is not None
    assert (second.version, second.previous_version, second.revision) == (2, 1, 2)
    assert (second.updated_at, second.updated_by) == (later, "bob")


BEATS = st.lists(
    st.builds(
        Heartbeat,
        st.just("s"),
        st.just(0.0),
        st.integers(4, 6),
        st.dictionaries(st.just("m"), st.sampled_from(["ver_1", "ver_2"])),
    ),
    max_size=3,
)


@given(BEATS, st.sampled_from(["ver_1", None]))
def test_a_deployment_is_settled_once_every_server_has_followed(beats: list[Heartbeat], version: str | None):
    followed = [one.snapshot >= 5 and one.serving.get("m") == version for one in beats]
    assert rules.is_settled("m", version, 5, beats) is all(followed)


def test_a_server_that_gave_the_version_up_is_not_waited_for():
    gone = Heartbeat("s", 0.0, 5, {}, {"ver_1": "it does not load"})
    with pytest.raises(CannotBeServed, match="it does not load"):
        rules.is_settled("m", "ver_1", 5, [gone])
    assert rules.is_settled("m", None, 5, [gone])
    assert not rules.is_settled("m", "ver_1", 6, [gone])  # it may be the reason of an older try


def test_promoting_what_serves_changes_nothing():
    serving = msgspec.structs.replace(NEW, version_id="ver_1", version=1, revision=3)
    assert rules.promote(serving, "ver_1", 1, expected=3, by="ada", now=NOW) is None


def test_a_stale_revision_is_refused_and_told_the_present_one():
    present = msgspec.structs.replace(NEW, revision=7)
    with pytest.raises(DeploymentStale, match="revision 7"):
        rules.promote(present, "ver_1", 1, expected=6, by="ada", now=NOW)


@given(st.lists(st.integers(1, 5), max_size=30))
def test_revisions_count_the_changes(numbers: list[int]):
    deployment, changes = NEW, 0
    for number in numbers:
        changed = rules.promote(deployment, f"ver_{number}", number, expected=deployment.revision, by="ada", now=NOW)
        if changed is not None:
            assert changed.previous_version == deployment.version
            deployment, changes = changed, changes + 1
    assert deployment.revision == changes
    assert deployment.version == (numbers[-1] if numbers else None)


def test_a_snapshot_holds_exactly_the_versions_that_its_deployments_name():
    deployments = [
        msgspec.structs.replace(NEW, name="b", version_id="ver_1"),
        msgspec.structs.replace(NEW, name="a", version_id="ver_2"),
        msgspec.structs.replace(NEW, name="none"),
        msgspec.structs.replace(NEW, name="lost", version_id="ver_gone"),
    ]
    snapshot = rules.compile_snapshot(4, NOW, deployments, [_served("ver_1"), _served("ver_2"), _served("ver_3")], ())
    assert [(one.name, one.version_id) for one in snapshot.deployments] == [("a", "ver_2"), ("b", "ver_1")]
    assert [version.id for version in snapshot.versions] == ["ver_1", "ver_2"]
    assert snapshot.made_at == NOW.timestamp()
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot


def test_a_snapshot_holds_the_versions_that_aliases_point_to_and_no_alias_to_what_is_not_there():
    deployments = [msgspec.structs.replace(NEW, version_id="ver_1")]
    aliases = {"mdl_1": {"champion": "ver_1", "canary": "ver_2", "lost": "ver_gone"}, "mdl_2": {"other": "ver_3"}}
    versions = [_served("ver_1"), _served("ver_2"), _served("ver_3")]
    snapshot = rules.compile_snapshot(4, NOW, deployments, versions, (), aliases=aliases)
    assert snapshot.deployments[0].aliases == {"champion": "ver_1", "canary": "ver_2"}
    assert [version.id for version in snapshot.versions] == ["ver_1", "ver_2"]
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot


def test_what_servers_say_is_told_by_version_numbers():
    deployment = msgspec.structs.replace(NEW, version_id="ver_2", version=2)
    beats = [
        Heartbeat("s1", NOW.timestamp(), 5, {"m": "ver_1"}, {"ver_2": "it cannot be loaded"}),
        Heartbeat("s2", NOW.timestamp(), 6, {}),
    ]
    said = rules.serving(deployment, beats, {"ver_1": 1, "ver_2": 2})
    assert [(one.server, one.snapshot, one.version, one.failing) for one in said] == [
        ("s1", 5, 1, "it cannot be loaded"),
        ("s2", 6, None, ""),
    ]
    assert said[0].at == NOW
