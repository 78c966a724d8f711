"""Asks an installation with KServe's own client by its V1 protocol: kserve_v1.py URL KEY MODEL; prints what came as JSON."""

import asyncio
import json
import sys

import httpx
from kserve import InferenceRESTClient, RESTConfig


async def main(url: str, key: str, model: str) -> dict[str, object]:
    headers = {"x-api-key": key}
    found: dict[str, object] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v1", timeout=30)) as client:
        found["ready"] = await client.is_model_ready(url, model, headers=headers)
        for name, rows in (("lists", [[1.5, 2.0], [3.0, -4.0]]), ("one", [[0.0, 0.5]])):
            answer = await client.infer(url, {"instances": rows}, model_name=model, headers=headers)
            found[name] = answer["predictions"]
        for name, call in (
            ("unknown", client.infer(url, {"instances": [[1, 2]]}, model_name="nobody", headers=headers)),
            ("wrong", client.infer(url, {"instances": [["x", 2]]}, model_name=model, headers=headers)),
            ("explain", client.explain(url, model, {"instances": [[1, 2]]}, headers=headers)),
            ("keyless", client.infer(url, {"instances": [[1, 2]]}, model_name=model)),
        ):
            try:
                found[name] = await call
            except httpx.HTTPStatusError as error:
                found[name] = [error.response.status_code, error.response.json()["error"]]
    return found


print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
