"""The Open Inference Protocol, V2: what its tensors are, and REST. Its errors are always `{"error": "..."}`.

Source: the published description at github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md, and
the extensions of github.com/triton-inference-server/server, docs/protocol.
"""

from typing import Final

NAME: Final = "v2"
"""What predictions over REST are written down as, and counted as."""
GRPC_NAME: Final = "v2-grpc"
"""The same of those over gRPC."""
