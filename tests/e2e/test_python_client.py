"""The client that is awaited, in a real installation; and the examples of its page, as they stand there."""

import asyncio
import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from fixtures.installation import Installation
from modelkeep.client import AsyncClient, Client, InvalidInput, ModelNotFound, VersionInUse, VersionNotFound
from modelkeep.contracts.signature import Dtype

PASSWORD = "correct horse battery staple"
PAGE = Path(__file__).parents[2] / "docs/how-to/python-client.md"


def test_the_examples_of_the_page_run_as_they_stand_there(
    house: Installation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with house.client() as admin:
        ada = admin.add_user("ada", email="ada@example.org")
        admin.set_password(admin.reset_password(ada.id).token, PASSWORD)
    monkeypatch.setattr("getpass.getpass", lambda: PASSWORD)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 5
    code = "\n".join(blocks).replace("http://127.0.0.1:8080", house.url).replace("mk_...", house.key)
    names: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    client = names["client"]
    assert isinstance(client, Client)
    client.close()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("ready [")
    assert said[1] == "569"
    assert said[2] == "['label', 'probabilities'] int64"
    assert said[3] == "[1, 1, 1, 1, 1]"
    assert said[4] == "ada"
    assert said[5].startswith("invalid_input ")
    assert said[6].startswith("404 ")


async def test_a_walk_without_blocking(house: Installation, tmp_path: Path) -> None:
    rows = pd.DataFrame({"a": np.linspace(-1, 1, 20), "b": np.arange(20.0)})
    estimator = LogisticRegression().fit(rows, rows["b"] > 9)
    async with AsyncClient(house.url, house.key) as client:
        states: list[str] = []
        version = await client.push(estimator, "awaited", sample=rows.head(), on_state=lambda one: states.append(one.state))
        assert (version.number, version.state, version.format) == (1, "ready", "skops")
        assert states[-1] == "ready"
        answers = await asyncio.gather(*(client.predict("awaited", rows.iloc[n : n + 1]) for n in range(20)))
        assert [one.outputs["label"].tolist() for one in answers] == [[n > 9] for n in range(20)]
        many = await client.predict_many("awaited", pa.Table.from_pandas(rows, preserve_index=False), chunk=6)
        assert [len(one.outputs["label"]) for one in many] == [6, 6, 6, 2]
        only = await client.predict("awaited", rows.head(2), outputs=["label"])
        assert {name: values.tolist() for name, values in only.outputs.items()} == {"label": [False, False]}
        with pytest.raises(InvalidInput) as caught:
            await client.predict("awaited", rows.head(2), outputs=["label", "labels"])
        assert [field.path for field in caught.value.fields] == ["outputs.labels"]
        assert "it has label, probabilities" in str(caught.value)
        assert (await client.promote("awaited", 1)).version == 1
        file = await client.download("awaited", 1, tmp_path)
        assert file.name == "model.skops"
        assert (await client.replay("awaited", rows=rows.head(3))).agrees
        with pytest.raises(ModelNotFound):
            await client.model("nobody-s")
        with pytest.raises(VersionNotFound):
            await client.version("awaited", 9)
        with pytest.raises(VersionInUse):
            await client.archive("awaited", version=1)
        with pytest.raises(InvalidInput) as caught:
            await client.predict("awaited", [["x", 1]])
        assert caught.value.request_id
        assert caught.value.fields


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table, dict], ids=["pandas", "polars", "arrow", "dict"])
def test_wide_whole_numbers_come_back_with_every_digit(house: Installation, echoes: dict[Dtype, str], make: type) -> None:
    low, high = [0, 2**53 + 1, 2**63], [2**64 - 1, 1, 2**53 - 1]
    rows = {"a": np.array(low, "u8"), "b": np.array(high, "u8")}
    with house.client() as client:
        answer = client.predict(echoes[Dtype.UINT64], _pairs(make, rows))
    expected = [list(pair) for pair in zip(low, high, strict=True)]
    assert answer.outputs["y"].tolist() == expected
    assert answer.outputs["y"].dtype == np.uint64
    assert answer.to_arrow()["y"].to_pylist() == expected
    assert answer.to_pandas()["y"].tolist() == expected


def _pairs(make: type, rows: dict[str, np.ndarray]) -> object:
    """A model of one tensor takes rows, not columns: each library's own form of them."""
    table = make(rows)
    if make is dict:
        return np.stack(list(rows.values()), axis=1)
    if make is pa.table:
        return [list(one.values()) for one in table.to_pylist()]
    return table.to_numpy()
