"""Snapshots outlive the program that wrote them: one written before a field existed is still read."""

import msgspec

from modelkeep.contracts.access import Scope, Standing, decide
from modelkeep.contracts.snapshot import DeploymentSettings, ServedDeployment, ServedKey, decode_snapshot


def test_a_snapshot_without_settings_or_rates_is_read_with_their_defaults() -> None:
    old = {
        "number": 7,
        "made_at": 1.0,
        "deployments": [{"name": "iris", "version_id": "ver_1", "revision": 1}],
        "versions": [],
        "keys": [{"id": "key_1", "digest": b"d", "name": "one", "scopes": ["predict"], "expires_at": None}],
    }
    snapshot = decode_snapshot(msgspec.msgpack.encode(old))
    assert snapshot.deployments == (ServedDeployment("iris", "ver_1", 1, DeploymentSettings()),)
    assert snapshot.keys == (ServedKey("key_1", b"d", "one", Standing(""), None, None, 0),)
    assert not decide(snapshot.keys[0].standing, Scope.PREDICT, snapshot.deployments[0].place).allowed


def test_settings_that_are_not_given_are_the_defaults_at_every_depth() -> None:
    settings = msgspec.json.decode(b'{"batching": {"mode": "off"}, "recording": {"inputs": "hash"}}', type=DeploymentSettings)
    assert (settings.batching.mode, settings.batching.max_wait_ms) == ("off", -1.0)
    assert (settings.recording.inputs, settings.recording.outputs, settings.recording.keep_days) == ("hash", "keep", 30)
    assert settings.replicas.min == 1
