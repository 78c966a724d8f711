"""What is written in an afternoon: FastAPI with a plain function, which runs in its thread pool. No batching."""

import numpy as np
from fastapi import FastAPI, UploadFile
from pydantic import BaseModel
from served import ROWS, classified, forest, network, prepared

app = FastAPI()


class Rows(BaseModel):
    """What is asked."""

    rows: list[list[float]]


class Probabilities(BaseModel):
    """What is answered."""

    probabilities: list[list[float]]


if ROWS:
    model = forest()

    @app.post("/predict")
    def predict(asked: Rows) -> Probabilities:
        """Answer rows."""
        return Probabilities(probabilities=model(np.array(asked.rows)).tolist())

else:
    run = network()

    @app.post("/predict")
    def classify(file: UploadFile) -> dict[str, object]:
        """Answer a picture."""
        return {"top5": classified(run, [prepared(file.file.read())])[0]}
