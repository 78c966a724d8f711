"""How a change to settings is read: any patch ends in valid settings or in faults that name their place."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import Batching, DeploymentSettings, Recording, Replicas
from modelkeep.control.deployments.configuration import RANGES, field_names, merged
from modelkeep.control.deployments.errors import InvalidSettings

SIGNATURE = Signature(
    (TensorSpec("x", Dtype.FP32, (-1, 2), columns=("age", "income")),), (TensorSpec("score", Dtype.FP32, (-1,)),)
)


def faults(patch: dict[str, object], present: DeploymentSettings | None = None) -> dict[str, str]:
    """The faults of a patch: codes by place."""
    with pytest.raises(InvalidSettings) as wrong:
        merged(present or DeploymentSettings(), patch, SIGNATURE)
    return {one.path: one.code for one in wrong.value.fields}


def message(patch: dict[str, object]) -> str:
    with pytest.raises(InvalidSettings) as wrong:
        merged(DeploymentSettings(), patch, SIGNATURE)
    return wrong.value.fields[0].message


def test_every_fault_is_found_at_once():
    patch = {
        "dedline_s": 1,
        "concurrency": "many",
        "batching": {"mode": "of", "max_row": 1, "max_wait_ms": None},
        "replicas": 3,
        "recording": {"sample": "all", "enabled": 1, "fields": {"agee": "hash", "age": "hide"}},
    }
    assert faults(patch) == {
        "settings.dedline_s": "unknown_setting",
        "settings.concurrency": "wrong_type",
        "settings.batching.mode": "not_a_choice",
        "settings.batching.max_row": "unknown_setting",
        "settings.replicas": "wrong_type",
        "settings.recording.sample": "wrong_type",
        "settings.recording.enabled": "wrong_type",
        "settings.recording.fields.agee": "unknown_field",
        "settings.recording.fields.age": "not_a_choice",
    }


def test_a_slip_is_answered_with_what_was_meant():
    assert "Did you mean 'deadline_s'?" in message({"dedline_s": 1})
    assert "Did you mean 'off'?" in message({"batching": {"mode": "of"}})
    assert "Did you mean 'income'?" in message({"recording": {"fields": {"incom": "drop"}}})
    assert "There are: mode, max_rows, max_wait_ms, latency_target_ms." in message({"batching": {"zzz": 1}})


def test_a_fault_never_repeats_the_value_that_was_sent():
    for patch in ({"concurrency": "s3cret"}, {"batching": {"mode": "s3cret"}}, {"recording": {"fields": {"age": "s3cret"}}}):
        assert "s3cret" not in message(patch)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -2, 1e9])
@pytest.mark.parametrize("place", sorted(RANGES))
def test_numbers_out_of_their_range_are_refused(place: str, value: float):
    group, _dot, name = place.rpartition(".")
    patch = {group: {name: value}} if group else {name: value}
    assert faults(patch)[f"settings.{place}"] in {"out_of_range", "wrong_type"}


def test_every_number_has_a_range_that_holds_or_names_its_default():
    def numbers(value: object, path: str = "") -> set[str]:
        found: set[str] = set()
        for name, one in msgspec.structs.asdict(value).items():
            if isinstance(one, msgspec.Struct):
                found |= numbers(one, f"{path}{name}.")
            elif type(one) in {int, float}:
                found.add(f"{path}{name}")
        return found

    assert numbers(DeploymentSettings()) == set(RANGES)


def test_the_most_replicas_are_not_fewer_than_the_least():
    assert faults({"replicas": {"min": 4, "max": 2}}) == {"settings.replicas.max": "out_of_range"}
    present = DeploymentSettings(replicas=Replicas(1, 2))
    assert faults({"replicas": {"min": 4}}, present) == {"settings.replicas.max": "out_of_range"}
    assert merged(present, {"replicas": {"min": 4, "max": 0}}, SIGNATURE).replicas == Replicas(4, 0)


def test_fields_kept_from_an_earlier_version_hinder_no_other_change():
    present = DeploymentSettings(recording=Recording(fields={"gone": "hash"}))
    assert merged(present, {"concurrency": 1}, SIGNATURE).recording.fields == {"gone": "hash"}
    assert merged(present, {"recording": {"fields": {"gone": None}}}, SIGNATURE).recording.fields == {}


def test_inputs_columns_and_outputs_can_be_told_apart():
    assert field_names(SIGNATURE) == {"x", "age", "income", "score"}


KEEP = st.sampled_from(["keep", "hash", "drop"])


def numbers_of(place: str) -> st.SearchStrategy[float]:
    low, high = RANGES[place]
    return st.floats(low, high)


def whole_numbers_of(place: str) -> st.SearchStrategy[int]:
    low, high = RANGES[place]
    return st.integers(int(low), int(high))


SETTINGS = st.builds(
    DeploymentSettings,
    deadline_s=numbers_of("deadline_s"),
    concurrency=st.just(0) | whole_numbers_of("concurrency"),
    batching=st.builds(
        Batching,
        mode=st.sampled_from(["auto", "off", "cheap", "flat", "compute"]),
        max_rows=whole_numbers_of("batching.max_rows"),
        max_wait_ms=st.just(-1.0) | numbers_of("batching.max_wait_ms"),
    ),
    replicas=st.builds(Replicas, min=st.integers(1, 8), max=st.just(0) | st.integers(8, 16)),
    recording=st.builds(
        Recording,
        enabled=st.booleans(),
        sample=st.floats(0, 1),
        inputs=KEEP,
        fields=st.dictionaries(st.sampled_from(sorted(field_names(SIGNATURE))), KEEP),
        keep_days=whole_numbers_of("recording.keep_days"),
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["deadline_s", "batching", "mode", "max_rows", "replicas", "min", "recording", "fields", "x", "?"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(present=SETTINGS, wanted=SETTINGS)
def test_a_whole_document_merged_is_that_document_but_for_fields_it_does_not_name(
    present: DeploymentSettings, wanted: DeploymentSettings
):
    patch = msgspec.json.decode(msgspec.json.encode(wanted))
    reset = dict.fromkeys(("deadline_s", "batching", "replicas", "concurrency", "recording"))
    assert merged(merged(present, reset, SIGNATURE), patch, SIGNATURE) == wanted
    assert merged(present, reset, SIGNATURE) == DeploymentSettings()
    assert merged(present, {}, SIGNATURE) == present


@given(present=SETTINGS, patch=st.dictionaries(st.sampled_from(["deadline_s", "batching", "recording", "?"]), JSON, max_size=4))
def test_any_document_ends_in_settings_that_can_be_kept_or_in_faults_with_a_place(
    present: DeploymentSettings, patch: dict[str, object]
):
    try:
        after = merged(present, patch, SIGNATURE)
    except InvalidSettings as error:
        places = [one.path for one in error.fields]
    else:
        assert msgspec.json.decode(msgspec.json.encode(after), type=DeploymentSettings) == after
        return
    assert places
    assert all(place.startswith("settings.") for place in places)
