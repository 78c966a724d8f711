"""The Python client of Modelkeep.

    from modelkeep.client import Client

    with Client("http://127.0.0.1:8080", api_key="mk_...") as client:
        client.push(estimator, name="churn", sample=X_train.head())
        print(client.predict("churn", X_test).outputs)

It needs httpx and nothing else; numpy, pandas, joblib and Pillow are used where the caller hands over their objects.
"""

from modelkeep.client.client import Client
from modelkeep.client.errors import (
    Conflict,
    Field,
    Invalid,
    Limited,
    ModelkeepError,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    Rejected,
    ServerFailed,
    ServerUnreachable,
    Stale,
    TimedOut,
    TooLarge,
    Unavailable,
)
from modelkeep.client.results import (
    Deployment,
    Key,
    Label,
    Model,
    Prediction,
    RecordedPrediction,
    Rejection,
    Replay,
    Side,
    Version,
)

__all__ = [
    "Client",
    "Conflict",
    "Deployment",
    "Field",
    "Invalid",
    "Key",
    "Label",
    "Limited",
    "Model",
    "ModelkeepError",
    "NotAllowed",
    "NotAuthenticated",
    "NotFound",
    "Prediction",
    "RecordedPrediction",
    "Rejected",
    "Rejection",
    "Replay",
    "ServerFailed",
    "ServerUnreachable",
    "Side",
    "Stale",
    "TimedOut",
    "TooLarge",
    "Unavailable",
    "Version",
]
