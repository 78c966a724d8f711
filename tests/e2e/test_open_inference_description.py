"""The published description of the Open Inference Protocol, tried from end to end: nothing undocumented is ever answered."""

from pathlib import Path

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from fixtures.installation import Installation
from modelkeep.contracts.signature import Dtype

DESCRIPTION = Path(__file__).parents[1] / "fixtures" / "open_inference" / "rest.yaml"
OPERATIONS = [one.ok() for one in schemathesis.openapi.from_dict(yaml.safe_load(DESCRIPTION.read_text())).get_all_operations()]
# What the description leaves out is not checked: content types other than JSON, and methods that it does not name.
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]


@pytest.mark.parametrize("operation", OPERATIONS, ids=[one.label for one in OPERATIONS])
def test_every_answer_is_one_that_the_description_knows(
    house: Installation, echoes: dict[Dtype, str], operation: schemathesis.schemas.APIOperation
) -> None:
    names = [*echoes.values()]

    @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy())
    def ask(case: schemathesis.Case) -> None:
        made_up = case.path_parameters.get("MODEL_NAME")
        # Made-up names are unknown, so most cases ask a model that is there; a shared one is neither loaded nor unloaded here.
        if made_up is not None and len(made_up) % 3 and not case.path.startswith("/v2/repository"):
            case.path_parameters["MODEL_NAME"] = names[len(made_up) % len(names)]
            if "MODEL_VERSION" in case.path_parameters:
                case.path_parameters["MODEL_VERSION"] = "1"
        case.call_and_validate(base_url=house.url, headers={"X-API-Key": house.key}, checks=CHECKS)

    ask()


def test_the_description_has_the_protocol_and_its_extensions() -> None:
    assert len(OPERATIONS) == 15
