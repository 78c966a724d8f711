"""boto3's own client of SageMaker's runtime against a real installation, and the guide's example as it stands there."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from sklearn.linear_model import LogisticRegression

from fixtures.installation import Installation
from fixtures.pages import programs
from modelkeep.contracts.signature import FLOATS, Dtype

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "sagemaker.md"


def runtime_for(house: Installation, key: str) -> Any:
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=house.url,
        region_name="any",
        aws_access_key_id=key,
        aws_secret_access_key="anything",
        config=Config(retries={"max_attempts": 0}),
    )


@pytest.fixture
def runtime(house: Installation) -> Iterator[Any]:
    client = runtime_for(house, house.key)
    yield client
    client.close()


def invoked(runtime: Any, name: str, body: object, content_type: str = "application/json", **more: str) -> tuple[Any, Any]:
    data = body if isinstance(body, str | bytes) else json.dumps(body)
    answer = runtime.invoke_endpoint(EndpointName=name, ContentType=content_type, Body=data, **more)
    return json.load(answer["Body"])["predictions"], answer


def saved(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_the_guides_program_is_answered(house: Installation, tmp_path: Path) -> None:
    frame = pd.DataFrame({"income": [2.5, 9.0, 3.0, 8.0], "debts": [3.0, 0.5, 4.0, 1.0]})
    with house.client() as client:
        version = client.push(LogisticRegression().fit(frame, [1, 0, 1, 0]), "loans", sample=frame)
    assert version.state == "ready", version.rejection
    ((file, program),) = programs(PAGE, tmp_path).items()
    assert program
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "MODELKEEP_URL": house.url,
        "MODELKEEP_API_KEY": house.key,
    }
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert [f"'label': {label}" in done.stdout for label in (0, 1)] == [True, True]
    assert done.stdout.split()[-1].isdigit()


@pytest.mark.parametrize("dtype", [one for one in Dtype if one is not Dtype.BYTES])
def test_every_number_comes_back_bit_for_bit(runtime: Any, echoes: dict[Dtype, str], dtype: Dtype) -> None:
    if dtype in FLOATS:
        limits = np.finfo(dtype.numpy)
        rows = [[float(limits.max), float(limits.smallest_subnormal)], [-0.0, 1 / 3]]
    else:
        whole = (0, 1) if dtype is Dtype.BOOL else (np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max)
        rows = [[int(one) for one in whole]]
    array = np.array(rows, dtype.numpy)
    text = "\n".join(",".join(map(repr, row)) for row in array.tolist())
    for body, kind in (
        ({"instances": array.tolist()}, "application/json"),
        ({"inputs": array.tolist()}, "application/json"),
        ({"dataframe_split": {"columns": [0, 1], "data": array.tolist()}}, "application/json"),
        (saved(array), "application/x-npy"),
        (text, "text/csv; header=absent"),
    ):
        answered, _answer = invoked(runtime, echoes[dtype], body, kind)
        assert np.array(answered, dtype.numpy).tobytes() == array.tobytes(), kind


def test_texts_come_back(runtime: Any, echoes: dict[Dtype, str]) -> None:
    rows = [["grüß dich \U0001f600", 'a, "b"\nc']]
    assert invoked(runtime, echoes[Dtype.BYTES], {"instances": rows})[0] == rows
    quoted = '"grüß dich \U0001f600","a, ""b""\nc"\r\n'
    assert invoked(runtime, echoes[Dtype.BYTES], quoted.encode(), "text/csv")[0] == rows


def test_what_was_asked_is_told_and_found_again(house: Installation, runtime: Any, echoes: dict[Dtype, str]) -> None:
    name = echoes[Dtype.FP64]
    _rows, answer = invoked(
        runtime, name, {"instances": [[1, 2]]}, InferenceId="order-17", CustomAttributes="trace=1", TargetVariant="1"
    )
    assert answer["InvokedProductionVariant"] == "1"
    assert answer["CustomAttributes"] == "trace=1"
    assert answer["ResponseMetadata"]["RequestId"] == "order-17"
    assert invoked(runtime, "any-name", {"instances": [[1, 2]]}, TargetModel=f"{name}.tar.gz")[0] == [[1, 2]]


def test_errors_are_boto3s_own(house: Installation, runtime: Any, echoes: dict[Dtype, str]) -> None:
    name = echoes[Dtype.FP64]
    with pytest.raises(runtime.exceptions.ModelError) as unfit:
        invoked(runtime, name, {"instances": [["x", 2]]})
    assert unfit.value.response["OriginalStatusCode"] == 400
    assert unfit.value.response["OriginalMessage"].startswith("instances[0][0]: ")
    for wrong in ({"TargetVariant": "9"}, {"TargetModel": "nothing.tar.gz"}, {"TargetContainerHostname": "second"}):
        with pytest.raises(runtime.exceptions.ValidationError):
            invoked(runtime, name, {"instances": [[1, 2]]}, **wrong)
    with pytest.raises(runtime.exceptions.ValidationError):
        invoked(runtime, "nothing", {"instances": [[1, 2]]})
    stranger = runtime_for(house, "mk_nobody")
    with pytest.raises(ClientError) as unknown:
        invoked(stranger, name, {"instances": [[1, 2]]})
    stranger.close()
    assert unknown.value.response["Error"]["Code"] == "UnrecognizedClientException"
