"""The demo's models are what they say they are: they recognise photographs, and tumours they have not seen."""

import json
import pickle
from pathlib import Path

import joblib
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import sklearn.datasets
from PIL import Image

PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"


def prepared(photograph, spec):
    image = Image.open(photograph).convert("RGB")
    side = int(min(image.size) * spec["crop"])
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((spec["size"],) * 2, Image.Resampling.BICUBIC)
    values = (np.asarray(image, "f4") - np.array(spec["mean"], "f4")) / np.array(spec["std"], "f4")
    return values.transpose(2, 0, 1)[None]


@pytest.fixture(scope="module")
def imagenet(demo_models):
    return demo_models["imagenet"]


@pytest.fixture(scope="module")
def classify(imagenet):
    session = onnxruntime.InferenceSession(str(imagenet.artifact), providers=["CPUExecutionProvider"])
    spec = json.loads(imagenet.preprocess.read_text())

    def scores(photograph):
        (found,) = session.run(["scores"], {"image": prepared(photograph, spec)})
        return found[0]

    return scores


@pytest.mark.parametrize(
    ("photograph", "names"),
    [
        ("flower.jpg", ["daisy", "mushroom", "bee", "sea anemone", "ant"]),
        ("china.jpg", ["palace", "bell tower", "monastery", "lakeshore", "castle"]),
    ],
)
def test_the_image_classifier_names_what_is_in_a_photograph(imagenet, classify, photograph, names):
    labels = imagenet.labels.read_text().splitlines()
    best = classify(PHOTOGRAPHS / photograph).argsort()[::-1][:5]
    found = [labels[index] for index in best]
    assert found[0] == names[0]
    assert set(found[:3]) == set(names[:3])


def test_the_scores_are_probabilities_of_a_thousand_labels(imagenet, classify):
    scores = classify(PHOTOGRAPHS / "china.jpg")
    assert len(imagenet.labels.read_text().splitlines()) == scores.size == 1000
    assert scores.min() >= 0
    assert scores.sum() == pytest.approx(1, abs=1e-5)


def test_the_image_classifier_takes_any_number_of_pictures_at_once(imagenet):
    session = onnxruntime.InferenceSession(str(imagenet.artifact), providers=["CPUExecutionProvider"])
    spec = json.loads(imagenet.preprocess.read_text())
    pictures = [prepared(PHOTOGRAPHS / name, spec) for name in ("china.jpg", "flower.jpg", "china.jpg")]
    (together,) = session.run(["scores"], {"image": np.concatenate(pictures)})
    (alone,) = session.run(["scores"], {"image": pictures[1]})
    np.testing.assert_allclose(together[1], alone[0], atol=1e-6)
    np.testing.assert_allclose(together[0], together[2], atol=1e-6)


@pytest.mark.parametrize("photograph", ["flower.jpg", "china.jpg"])
def test_the_graph_computes_what_torch_computes(imagenet, classify, photograph, record_property):
    torch = pytest.importorskip("torch", reason="torch is not installed here; the labels above stand in for it")
    efficientnet_lite_pytorch = pytest.importorskip("efficientnet_lite_pytorch")
    from efficientnet import weights_path

    network = efficientnet_lite_pytorch.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=str(weights_path())
    ).eval()
    picture = prepared(PHOTOGRAPHS / photograph, json.loads(imagenet.preprocess.read_text()))
    with torch.no_grad():
        expected = torch.softmax(network(torch.from_numpy(picture)), 1)[0].numpy()
    difference = float(np.abs(expected - classify(PHOTOGRAPHS / photograph)).max())
    record_property("max_difference_to_torch", difference)
    assert difference < 1e-5


def test_the_tabular_classifier_knows_patients_it_has_not_seen(demo_models):
    from breast_cancer import load

    model = demo_models["breast-cancer"]
    pipeline = joblib.load(model.artifact)
    sample = pd.read_csv(model.sample)
    truth = load().loc[lambda table: table["mean radius"].isin(sample["mean radius"])]
    joined = sample.merge(truth, on=list(sample.columns))
    assert len(joined) == len(sample) == 20
    assert (pipeline.predict(joined[sample.columns]) == joined["diagnosis"]).mean() >= 0.9
    assert list(pipeline.classes_) == model.labels.read_text().splitlines() == ["benign", "malignant"]
    assert len(pipeline[-1].estimators_) == 100
    assert list(pipeline.feature_names_in_) == list(sample.columns)


def test_the_tabular_classifier_takes_a_missing_measurement(demo_models):
    model = demo_models["breast-cancer"]
    sample = pd.read_csv(model.sample)
    sample.iloc[0, 0] = float("nan")
    assert joblib.load(model.artifact).predict(sample)[0] in {"benign", "malignant"}


def test_a_built_model_is_not_built_again(demo_models, demo_cache):
    from models import build

    before = {path: path.stat().st_mtime_ns for path in demo_cache.rglob("*")}
    assert {model.name: model for model in build(demo_cache)} == demo_models
    assert {path: path.stat().st_mtime_ns for path in demo_cache.rglob("*")} == before


def test_a_build_that_fails_leaves_nothing_behind(tmp_path, demo_models):
    from models import RECIPES, Recipe, _built

    def half(folder):
        (folder / "model.joblib").write_bytes(b"half")
        raise KeyboardInterrupt

    recipe = Recipe("half", "", "model.joblib", "sample.csv", half, RECIPES[0].sources, RECIPES[0].packages)
    with pytest.raises(KeyboardInterrupt):
        _built(recipe, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_reader_of_weights_refuses_anything_but_weights(tmp_path, demo_models):
    from legacy_weights import NotLegacyWeights, read_state_dict

    class Code:
        def __reduce__(self):
            return (print, ("run",))

    file = tmp_path / "weights.pth"
    file.write_bytes(pickle.dumps(Code()))
    with pytest.raises(NotLegacyWeights, match="print"):
        read_state_dict(file)


def test_the_reader_of_weights_refuses_a_tensor_that_reaches_beyond_its_storage(demo_models):
    from legacy_weights import NotLegacyWeights, _tensor

    with pytest.raises(NotLegacyWeights, match="beyond"):
        _tensor("0", 1, (2, 2), (2, 1)).cut_from(np.zeros(4, "f4"))
    assert _tensor("0", 0, (2, 2), (1, 2)).cut_from(np.arange(4)).tolist() == [[0, 2], [1, 3]]
