"""Python classes in real runners: what they bring, what they answer, and what is said of those that cannot."""

import numpy as np
import pytest

from fixtures import python_models

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_class_answers(warm_bench):
    async with warm_bench.start(warm_bench.spec(python_models.doubles(), "python")) as runner:
        print(await runner.load(), runner.written().decode())
        result, outputs = await runner.run(x=np.array([1.0, 2.5]))
        print(result)
        assert outputs["y"].tolist() == [2.0, 5.0]
