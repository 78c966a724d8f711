"""How this plugin speaks to people: kinds of objects, and the warnings of a framework."""

import warnings
from typing import Any


def kind_of(thing: Any) -> str:  # noqa: ANN401 - any object
    """Return what an object is: its class with an article."""
    name = type(thing).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def said(warning: warnings.WarningMessage) -> str:
    """Return a warning in one line of ours."""
    saved = getattr(warning.message, "original_sklearn_version", None)
    if saved is not None:
        current = getattr(warning.message, "current_sklearn_version", "")
        return f"Saved with scikit-learn {saved}, served with {current}: results may differ."
    return " ".join(str(warning.message).split())[:300]
