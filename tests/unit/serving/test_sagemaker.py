"""SageMaker's runtime through the whole door; what it answers is read by botocore's own parsers."""

import io

import botocore.session
import httpx
import numpy as np
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, HeadersDict
from botocore.credentials import Credentials
from botocore.parsers import create_parser

INVOKE = "/endpoints/m/invocations"
ROWS = {"instances": [[1, 2], [3, 4.5]]}
ANSWER = {"predictions": [{"sum": 3.0, "echo": [1.0, 2.0]}, {"sum": 7.5, "echo": [3.0, 4.5]}]}
SHAPE = botocore.session.get_session().get_service_model("sagemaker-runtime").operation_model("InvokeEndpoint").output_shape


def parsed(answer: httpx.Response) -> dict:
    """What boto3 makes of an answer."""
    given = {"status_code": answer.status_code, "headers": HeadersDict(answer.headers.items()), "body": answer.content}
    return create_parser("rest-json").parse(given, SHAPE)


def refused(answer: httpx.Response) -> tuple[int, str]:
    error = parsed(answer)
    assert error["Error"]["Message"]
    assert error["ResponseMetadata"]["RequestId"] == answer.headers["x-request-id"]
    return answer.status_code, error["Error"]["Code"]


def target(**headers: str) -> dict[str, str]:
    return {f"X-Amzn-SageMaker-{name.replace('_', '-')}": value for name, value in headers.items()}


async def test_an_endpoint_is_a_deployment_and_its_variant_the_version(house) -> None:
    await house.serve("m", number=7)
    answer = await house.client.post(INVOKE, json=ROWS)
    assert (answer.status_code, answer.json()) == (200, ANSWER)
    assert parsed(answer)["InvokedProductionVariant"] == "7"
    for variant in ("7", "AllTraffic"):
        assert (await house.client.post(INVOKE, json=ROWS, headers=target(Target_Variant=variant))).json() == ANSWER
    assert refused(await house.client.post(INVOKE, json=ROWS, headers=target(Target_Variant="6"))) == (404, "ValidationError")


@pytest.mark.parametrize("name", ["n", "n.tar.gz", "/n.tar.gz"])
async def test_the_target_model_is_the_deployment(house, name: str) -> None:
    await house.serve("m", number=1)
    await house.serve("n", number=2)
    answer = await house.client.post(INVOKE, json=ROWS, headers=target(Target_Model=name))
    assert parsed(answer)["InvokedProductionVariant"] == "2"
    answer = await house.client.post(INVOKE, json=ROWS, headers=target(Target_Model="o.tar.gz"))
    assert refused(answer) == (404, "ValidationError")


@pytest.mark.parametrize("name", ["Target-Container-Hostname", "Inference-Component", "Enable-Explanations", "Session-Id"])
async def test_a_header_that_would_choose_something_else_is_not_dropped(house, name: str) -> None:
    await house.serve("m")
    assert refused(await house.client.post(INVOKE, json=ROWS, headers=target(**{name: "x"}))) == (400, "ValidationError")


async def test_the_inference_id_is_the_requests_and_attributes_come_back(house) -> None:
    await house.serve("m")
    answer = await house.client.post(INVOKE, json=ROWS, headers=target(Inference_Id="order-17", Custom_Attributes="trace=1"))
    assert answer.headers["x-request-id"] == answer.headers["x-amzn-requestid"] == house.records[-1].request_id == "order-17"
    assert parsed(answer)["CustomAttributes"] == "trace=1"
    answer = await house.client.post(INVOKE, json=ROWS, headers=target(Inference_Id="two words"))
    assert answer.headers["x-request-id"].startswith("req_")


async def test_csv_has_no_header_unless_it_names_the_columns(house) -> None:
    await house.serve("m")
    for text in ("1,2\n3,4.5\n", "b,a\n2,1\n4.5,3\n"):
        answer = await house.client.post(INVOKE, content=text, headers={"content-type": "text/csv"})
        assert answer.json() == ANSWER
    answer = await house.client.post(INVOKE, content="1,2\n3,4.5\n", headers={"content-type": "text/csv; header=present"})
    assert refused(answer) == (400, "ModelError")


async def test_an_array_is_taken_as_numpy_saves_it(house) -> None:
    await house.serve("m")
    stream = io.BytesIO()
    np.save(stream, np.array([[1, 2], [3, 4.5]]))
    for path in (INVOKE, "/invocations"):
        answer = await house.client.post(path, content=stream.getvalue(), headers={"content-type": "application/x-npy"})
        assert answer.json() == ANSWER


async def test_a_picture_is_taken_as_it_is(house, images) -> None:
    await house.serve("m", images.signature, images.compute, scores="scores", labels=("ant", "bee", "cat", "dog"))
    for path in (INVOKE, "/invocations"):
        answer = await house.client.post(path, content=b"ddc", headers={"content-type": "application/x-image"})
        assert answer.json() == {"predictions": [[0, 0, 1, 2]]}


def signed(key: str, **changes: str) -> dict[str, str]:
    request = AWSRequest("POST", f"http://door{INVOKE}", data=b"{}", headers={"content-type": "application/json", **changes})
    SigV4Auth(Credentials(key, "any secret"), "sagemaker", "eu-central-1").add_auth(request)
    return dict(request.headers.items())


async def test_the_access_key_id_of_a_signature_is_the_key_on_every_path(house) -> None:
    await house.serve("m")
    del house.client.headers["x-api-key"]
    for path in (INVOKE, "/invocations", "/serving-endpoints/m/invocations"):
        assert (await house.client.post(path, json=ROWS, headers=signed("predict"))).status_code == 200
        assert (await house.client.post(path, json=ROWS, headers=signed("nobody"))).status_code == 401
        assert (await house.client.post(path, json=ROWS, headers=signed("read"))).status_code == 403
        assert (await house.client.post(path, json=ROWS)).status_code == 401
    native = await house.client.post("/api/v1/predict/m", json={"inputs": [[1, 2]]}, headers=signed("predict"))
    assert native.status_code == 200


async def test_errors_are_those_that_boto3_knows(open_house, refuse) -> None:
    def fail(_inputs: dict) -> dict:
        raise refuse("model_failed", "secret words of the model")

    house = open_house(max_body_mb=1)
    await house.serve("m", compute=fail)
    post = house.client.post
    broken = await post(INVOKE, json=ROWS)
    assert refused(broken) == (500, "ModelError")
    assert broken.json()["OriginalStatusCode"] == 500
    unfit = await post(INVOKE, json={"instances": [[1, "x"]]})
    assert refused(unfit) == (400, "ModelError")
    assert unfit.json()["OriginalMessage"].startswith("instances[0][1]: ")
    assert refused(await post(INVOKE, content=b"x", headers={"content-type": "application/jsonlines"})) == (400, "ModelError")
    assert refused(await post("/endpoints/n/invocations", json=ROWS)) == (404, "ValidationError")
    assert refused(await post("/endpoints/m/async-invocations", json=ROWS)) == (404, "ValidationError")
    assert refused(await post("/endpoints")) == (404, "ValidationError")
    assert refused(await house.client.get(INVOKE)) == (405, "ValidationError")
    assert refused(await post(INVOKE, content=b" " * (1024 * 1024 + 1))) == (413, "ValidationError")
    assert refused(await post(INVOKE, json=ROWS, headers={"x-api-key": "nobody"})) == (401, "UnrecognizedClientException")
    assert refused(await post(INVOKE, json=ROWS, headers={"x-api-key": "read"})) == (403, "AccessDeniedException")
    await house.serve("o", wait=False)
    timeout = {"x-request-timeout": "0.05"}
    assert refused(await post("/endpoints/o/invocations", json=ROWS, headers=timeout)) in {
        (504, "ModelError"),
        (503, "ServiceUnavailable"),
    }
