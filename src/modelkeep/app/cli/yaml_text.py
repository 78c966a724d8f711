"""YAML as people write settings: `off` is a text, a number is what JSON calls one, a name stands once, and nothing refers.

YAML 1.1 takes `off` and `no` for false and `1:30` for 90, and lets a hundred bytes of references stand for gigabytes.
"""

import re
from typing import Any, Final

import yaml

_TAG: Final = "tag:yaml.org,2002:"
_PLAIN: Final = {
    "null": (r"^(?:null|~|)$", ["n", "~", ""]),
    "bool": (r"^(?:true|false)$", ["t", "f"]),
    "int": (r"^-?(?:0|[1-9][0-9]*)$", list("-0123456789")),
    "float": (r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)$", list("-0123456789")),
}


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # yaml tells no types
    """Reads plain values alone."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - a class of yaml's has it so

    def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401 - as yaml's
        """Refuse a reference."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="a reference, which is not taken here", problem_mark=self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:  # noqa: ANN401, FBT001, FBT002 - as yaml's
        """Refuse a name that is said twice; names are texts, as in JSON."""
        seen = set()
        for name, _value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a name that is no text", problem_mark=name.start_mark)
            if name.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{name.value!r} is said twice", problem_mark=name.start_mark)
            name.tag = f"{_TAG}str"
            seen.add(name.value)
        return dict(super().construct_mapping(node, deep=deep))


for _kind, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(_pattern), _first)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc] # yaml tells no types
    """Writes what `load` reads: equal values stand twice."""

    def ignore_aliases(self, data: object) -> bool:
        """Write no references."""
        del data
        return True


def load(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return what a text of YAML or JSON says; raises `ValueError` with the place of what is neither."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
        raise ValueError(f"{error.problem}{place}") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def dump(document: object) -> str:
    """Return a document as YAML, its names in their order."""
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))
