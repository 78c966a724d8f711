"""ResNet-50 as a model of MLServer: pictures come as base64 in an Open Inference request."""

import json

from mlserver import MLModel
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from served import classified, network, prepared


class Pictures(MLModel):
    """Answers pictures."""

    async def load(self) -> bool:
        """Load the model."""
        self._run = network()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run one batch."""
        best = classified(self._run, [prepared(one) for one in Base64Codec.decode_input(payload.inputs[0])])
        return InferenceResponse(
            model_name=self.name, outputs=[StringCodec.encode_output("top5", [json.dumps(one) for one in best])]
        )
