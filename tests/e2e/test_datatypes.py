"""Every datatype at its limits, through the native dialect, in a real installation."""

import math

import numpy as np
import pytest

from fixtures.installation import Installation
from modelkeep.contracts.signature import FLOATS, Dtype

INTEGERS = [one for one in Dtype if one not in FLOATS | {Dtype.BOOL, Dtype.BYTES}]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_whole_numbers_keep_every_digit(house: Installation, echoes: dict[Dtype, str], dtype: Dtype):
    limits = np.iinfo(dtype.numpy)
    rows = [[int(limits.min), int(limits.max)]]
    with house.http() as http:
        answer = http.post(f"/api/v1/predict/{echoes[dtype]}", json={"inputs": rows})
    assert answer.json()["outputs"]["y"] == rows


@pytest.mark.parametrize("dtype", sorted(FLOATS))
def test_floats_keep_the_largest_the_smallest_and_what_is_between(house: Installation, echoes: dict[Dtype, str], dtype: Dtype):
    limits = np.finfo(dtype.numpy)
    numbers = [float(limits.max), float(limits.min), float(limits.smallest_subnormal), 0.1, -0.0, 1 / 3]
    with house.client() as client:
        answered = np.array(client.predict(echoes[dtype], [[one, one] for one in numbers]).outputs["y"], dtype.numpy)
    given = np.array([[one, one] for one in numbers], dtype.numpy)
    assert answered.tobytes() == given.tobytes()
    assert math.copysign(1, answered[4, 0]) == -1


def test_texts_and_booleans_come_back(house: Installation, echoes: dict[Dtype, str]):
    with house.client() as client:
        assert client.predict(echoes[Dtype.BOOL], [[True, False]]).outputs["y"].tolist() == [[True, False]]
        texts = [["", "gr\u00fc\u00df dich \u0001 \U0001f600"]]
        assert client.predict(echoes[Dtype.BYTES], texts).outputs["y"].tolist() == texts
