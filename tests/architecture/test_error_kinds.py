"""Whatever goes wrong has a word in every protocol that is spoken here."""

import pytest

from modelkeep.contracts.errors import Kind
from modelkeep.infra import problems
from modelkeep.serving.dialects import mlflow, sagemaker
from modelkeep.serving.grpc import statuses


@pytest.mark.parametrize(
    "words",
    [problems.STATUS, problems.TITLE, mlflow.ERROR_CODES, sagemaker._ERRORS, statuses.STATUSES],
    ids=["HTTP", "problems", "MLflow", "SageMaker", "gRPC"],
)
def test_every_kind_of_error_has_its_word(words: dict[Kind, object]) -> None:
    assert words.keys() == set(Kind)
