"""Asks a Modelkeep server by MLflow's own code, and has MLflow's scoring server answer the same; prints what came as JSON.

`python mlflow_calls.py TASK.json`: the task names `url`, `key` and `port`, deployments, and a folder to work in.
"""

import json
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import requests
from mlflow.deployments import get_deploy_client
from mlflow.models import ModelSignature, convert_input_example_to_serving_input
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from mlflow.types import Schema, TensorSpec
from mlflow.utils.proto_json_utils import dump_input_data

JSON = "application/json"


class Echo(mlflow.pyfunc.PythonModel):
    """Answers what it is asked."""

    def predict(self, context, model_input):
        return model_input


def post(task: dict[str, Any], name: str, body: str, content_type: str = JSON) -> Any:
    headers = {"Authorization": f"Bearer {task['key']}", "Content-Type": content_type, "X-Modelkeep-Model": name}
    answer = requests.post(f"{task['url']}/invocations", data=body.encode(), headers=headers, timeout=30)
    return answer.json()


def peer(folder: str) -> Any:
    """MLflow's scoring of the same requests, by a model that answers matrices as they came."""
    spec = Schema([TensorSpec(np.dtype("float64"), (-1, 2))])
    mlflow.pyfunc.save_model(folder, python_model=Echo(), signature=ModelSignature(spec, spec), pip_requirements=[])
    model = mlflow.pyfunc.load_model(folder)

    def answer(body: str, content_type: str = JSON) -> Any:
        found = scoring_server.invocations(body, content_type, model, model.metadata.get_input_schema())
        return json.loads(found.response)

    return answer


def compared(task: dict[str, Any]) -> list[Any]:
    """What both answer to the same matrix in every form."""
    rows = np.array([[0.1, 1 / 3], [-0.0, 1e-300], [12345678.9, 2.0**60]])
    frame = pd.DataFrame(rows)
    bodies = [
        dump_input_data(rows),
        dump_input_data(rows, inputs_key="instances"),
        convert_input_example_to_serving_input(rows),
        dump_input_data(frame),
        convert_input_example_to_serving_input(frame),
        json.dumps({"dataframe_records": json.loads(frame.to_json(orient="records", double_precision=15))[:1]}),
    ]
    theirs = peer(task["folder"])
    found = [[post(task, task["matrix"], body), theirs(body)] for body in bodies]
    found.append([post(task, task["matrix"], frame.to_csv(index=False), "text/csv; header=present"), theirs(bodies[0])])
    return found


def framed(task: dict[str, Any]) -> list[Any]:
    """What is answered to a frame of all kinds of columns, as each of MLflow's builders writes it."""
    frame = pd.DataFrame(
        {
            "whole": np.array([2**53 + 1, -5], dtype="int64"),
            "number": [0.1, 1 / 3],
            "text": ["Żółw", 'a, "b"'],
            "day": pd.to_datetime(["2026-05-17 08:30", "2026-05-18 00:00"]),
            "flag": [True, False],
        }
    )
    bodies = [dump_input_data(frame), convert_input_example_to_serving_input(frame)]
    found = [post(task, task["table"], body) for body in bodies]
    text = frame.to_csv(index=False)
    found.append(post(task, task["table"], text, "text/csv"))
    gap = pd.DataFrame([[1.0, float("nan")]])
    found += [post(task, task["matrix"], body) for body in (dump_input_data(gap), convert_input_example_to_serving_input(gap))]
    return found


def by_databricks(task: dict[str, Any]) -> list[Any]:
    client = get_deploy_client("databricks")
    rows = {"dataframe_split": pd.DataFrame([[1.0, 2.0]]).to_dict(orient="split")}
    answered = client.predict(endpoint=task["matrix"], inputs={**rows, "client_request_id": "order-17"})
    try:
        client.predict(endpoint="nothing", inputs=rows)
    except requests.HTTPError as error:
        return [answered["predictions"], error.response.status_code, str(error)]
    return [answered["predictions"]]


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    client = ScoringServerClient("127.0.0.1", task["port"])
    refusal = post(task, "nothing", '{"inputs": [[1, 2]]}')
    known = set(ErrorCode.keys())
    found = {
        "compared": compared(task),
        "framed": framed(task),
        "databricks": by_databricks(task),
        "version": client.get_version(),
        "known": refusal["error_code"] in known,
        "codes": [code for code in task["codes"] if code not in known],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
