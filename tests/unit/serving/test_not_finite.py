"""NaN and infinity in answers are what the deployment says, by every dialect."""

from typing import Any

import numpy as np
import pytest

from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import DeploymentSettings, NotFinite

SIGNATURE = Signature(
    (TensorSpec("input", Dtype.FP64, (-1, 2), nullable=True),),
    (TensorSpec("scores", Dtype.FP64, (-1, 2)), TensorSpec("count", Dtype.INT64, (-1,))),
)
ODD = {"null": [[None, None], [1.5, None]], "text": [["NaN", "Infinity"], [1.5, "-Infinity"]]}


def odd(inputs: dict[str, Any]) -> dict[str, Any]:
    """For a missing value what no JSON number is, else the values themselves."""
    rows = inputs["input"]
    return {
        "scores": np.where(np.isnan(rows[:1, :1]), [[np.nan, np.inf], [1.5, -np.inf]], 2.5)[: len(rows)],
        "count": np.arange(len(rows)),
    }


async def asked(house: Any, rows: list[list[float | None]]) -> dict[str, Any]:
    """The answer by each dialect, as lists of rows; or its status and words."""
    found: dict[str, Any] = {}
    native = await house.client.post("/api/v1/predict/m", json={"inputs": rows})
    found["native"] = (
        native.json()["outputs"]["scores"] if native.status_code == 200 else (native.status_code, native.json()["code"])
    )
    tensor = {"name": "input", "datatype": "FP64", "shape": [len(rows), 2], "data": rows}
    protocol = await house.client.post("/v2/models/m/infer", json={"inputs": [tensor]})
    if protocol.status_code == 200:
        flat = protocol.json()["outputs"][0]["data"]
        found["protocol"] = [flat[at : at + 2] for at in range(0, len(flat), 2)]
    else:
        found["protocol"] = (protocol.status_code, "answer_not_finite" if "NaN or infinity" in protocol.text else protocol.text)
    return found


@pytest.mark.parametrize("policy", ["null", "text", "refuse"])
async def test_what_json_has_no_number_for_is_what_the_deployment_says(house: Any, policy: NotFinite) -> None:
    house.settings["m"] = DeploymentSettings(not_finite=policy)
    await house.serve("m", SIGNATURE, odd, scores="scores")
    wanted = ODD.get(policy, (500, "answer_not_finite"))
    assert await asked(house, [[None, 1], [2, 3]]) == {"native": wanted, "protocol": wanted}
    fine = [[2.5, 2.5], [2.5, 2.5]]
    assert await asked(house, [[1, 1], [2, 3]]) == {"native": fine, "protocol": fine}
    best = await house.client.post("/api/v1/predict/m", json={"inputs": [[None, 1]], "top_k": 1})
    shown = {"null": None, "text": "Infinity"}
    if policy == "refuse":
        assert (best.status_code, best.json()["code"]) == (500, "answer_not_finite")
    else:
        assert best.json()["predictions"][0][0]["score"] == shown[policy]


async def test_null_is_what_a_deployment_says_that_was_told_nothing(house: Any) -> None:
    await house.serve("m", SIGNATURE, odd)
    assert (await asked(house, [[None, 1], [2, 3]]))["native"] == ODD["null"]
