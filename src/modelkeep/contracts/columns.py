"""How the columns of a sample are matched with those of a model: by name where both have names, else by place."""

from collections.abc import Sequence

_MOST_NAMES = 20


class ColumnsDiffer(Exception):
    """The sample's columns are not the model's; the sentence says which are missing, too many or unknown."""


def places(given: Sequence[str], wanted: Sequence[str], *, by_name: bool = True) -> list[int]:
    """Return where among the columns `given` each one `wanted` is ("" for a column without a name); raises `ColumnsDiffer`."""
    if by_name and "" not in given and "" not in wanted:
        missing = [name for name in wanted if name not in given]
        extra = [name for name in given if name not in wanted]
        if missing or extra:
            parts = [f"missing: {listed(missing)}"] * bool(missing) + [f"not the model's: {listed(extra)}"] * bool(extra)
            raise ColumnsDiffer(f"The sample's columns differ; {'; '.join(parts)}.")
        at = {name: place for place, name in enumerate(given)}
        return [at[name] for name in wanted]
    if len(given) != len(wanted):
        found = listed([name for name in given if name])
        raise ColumnsDiffer(
            f"The model takes {len(wanted)} columns; the sample has {len(given)}{': ' + found if found else ''}."
        )
    return list(range(len(wanted)))


def listed(names: Sequence[str]) -> str:
    """Return a few names, and how many more there are."""
    shown = ", ".join(names[:_MOST_NAMES])
    return f"{shown} and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else shown
