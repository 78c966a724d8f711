"""A pushed graph is served in 8-bit integers where that was asked for and measured, by fresh runners too."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.installation import Installation, eventually
from fixtures.onnx_networks import SIDE, convolutional, pictures
from modelkeep.client import Invalid, Rejected

PREPROCESS = {"size": SIDE, "crop": 1.0, "mean": [128.0] * 3, "std": [20.0] * 3, "interpolation": "nearest"}


def png(array: np.ndarray) -> bytes:
    into = io.BytesIO()
    Image.fromarray(np.clip(array.transpose(1, 2, 0) * 20 + 128, 0, 255).astype(np.uint8)).save(into, "PNG")
    return into.getvalue()


def said(house: Installation, *arguments: str) -> str:
    """What a command shows; it must succeed."""
    command = [sys.executable, "-m", "modelkeep.app.cli", *arguments, "--url", house.url]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"MODELKEEP_API_KEY": house.key})
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_int8_serves_by_the_command_with_what_was_measured(house: Installation, tmp_path: Path) -> None:
    model, calibration = tmp_path / "net.onnx", tmp_path / "rows.json"
    model.write_bytes(convolutional())
    calibration.write_text(json.dumps({"x": pictures(80).tolist()}))
    wish = ("--optimise", "int8", "--calibration", str(calibration), "--accuracy-budget", "5%")
    pushed = said(house, "push", str(model), "--name", "whole", *wish)
    assert "optimised" in pushed
    assert "yes: int8" in pushed
    shown = said(house, "versions", "whole", "1")
    assert "int8 by onnx" in shown
    assert "on 40 rows" in shown
    with house.client() as client:
        version = client.version("whole", 1)
        optimised = version.report["optimised"]
        assert optimised["used"]
        assert optimised["budget"] == 0.05
        rows = pictures(100)[80:]
        client.push(str(model), "floats", optimise="off", sample={"x": pictures(8).tolist()})
        wanted = client.predict("floats", {"x": rows.tolist()}).outputs["scores"]
        given = client.predict("whole", {"x": rows.tolist()}).outputs["scores"]
    wanted, given = np.asarray(wanted), np.asarray(given)
    assert (wanted != given).any()
    assert (wanted.argmax(axis=1) == given.argmax(axis=1)).mean() >= 0.9


def test_pictures_calibrate_and_a_restart_serves_the_same(own_house: Installation, tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes(convolutional())
    shown = [png(one) for one in pictures(60)]
    with own_house.client() as client:
        version = client.push(model, "photos", preprocess=PREPROCESS, optimise="int8", calibration=shown, accuracy_budget="10%")
        assert version.report["optimised"]["rows_held_out"] == 30
        before = client.predict("photos", shown[0]).predictions[0]
    own_house.stop()
    own_house.start().wait()
    with own_house.client() as client:
        eventually(lambda: client.deployment("photos").version == 1, "the version to be back")
        after = client.predict("photos", shown[0]).predictions[0]
    assert before == after


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"optimise": "fast"}, "is one of"),
        ({"optimise": "int8"}, "needs calibration rows"),
        ({"optimise": "bf16", "calibration": [[1.0]]}, "above 0"),
        ({"accuracy_budget": 0.01}, "needs calibration rows"),
        ({"accuracy_budget": "much", "calibration": [[1.0]]}, "share from 0 to 1"),
        ({"accuracy_budget": 1.5, "calibration": [[1.0]]}, "share from 0 to 1"),
        ({"optimise": "off", "calibration": [[1.0]]}, "uses no calibration"),
        ({"optimise": "openvino", "accuracy_budget": 0.1, "calibration": [[1.0]]}, "changes no answers"),
        ({"optimise": "threads", "accuracy_budget": 0.1, "calibration": [[1.0]]}, "changes no answers"),
    ],
)
def test_a_wish_that_cannot_be_judged_is_refused_at_once(house: Installation, tmp_path: Path, asked, words) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes(convolutional())
    with house.client() as client, pytest.raises(Invalid, match=words):
        client.push(model, "never", **asked)


def test_a_zip_without_pictures_is_refused(house: Installation, tmp_path: Path) -> None:
    from zipfile import ZipFile

    model, calibration = tmp_path / "net.onnx", tmp_path / "c.zip"
    model.write_bytes(convolutional())
    with ZipFile(calibration, "w") as archive:
        archive.writestr("readme.txt", "no picture")
    with house.client() as client, pytest.raises(Rejected, match="holds no picture"):
        client.push(model, "none", preprocess=PREPROCESS, optimise="int8", calibration=calibration)
