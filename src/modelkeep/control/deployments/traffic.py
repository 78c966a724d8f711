"""How a change to a deployment's traffic is read, and what it gives to whom.

It is a JSON merge patch of what an answer shows: shares by version, rules, whose requests stay together, and a shadow. Versions
are their numbers there, or aliases, which are looked up once, when the change is asked for. All that is wrong is found at once,
and each fault names its place.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from modelkeep.contracts.errors import FieldError
from modelkeep.contracts.traffic import Rule, Split, Traffic
from modelkeep.control.deployments.configuration import did_you_mean
from modelkeep.control.deployments.errors import InvalidTraffic

MOST_SPLITS: Final = 20
MOST_RULES: Final = 50
MOST_NAMED: Final = 500
"""How many callers, or values of a header, one rule may name."""

_FIELDS: Final = ("split", "rules", "sticky", "shadow")
_OF_RULE: Final = ("version", "name", "callers", "header", "values", "percent")
_OF_SHADOW: Final = ("version", "share")
_WHOLE: Final = 100
_DECIMALS: Final = 3
_LONGEST_PLACE: Final = 200
_LONGEST_TEXT: Final = 200
_HEADER: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,100}")
_CALLER: Final = re.compile(r"(usr|key|grp)_[0-9A-Za-z_-]{1,60}")
_STICKY: Final = "'caller', 'key', 'header:NAME' with the name in small letters, or nothing"


def document(traffic: Traffic, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Return traffic as answers show it, and as a patch of it is read; `numbers` are those of its versions by id."""
    return {
        "split": {str(numbers[one.version_id]): one.share for one in traffic.splits},
        "rules": [
            {
                "version": numbers[one.version_id],
                "name": one.name,
                "callers": list(one.callers),
                "header": one.header,
                "values": list(one.values),
                "percent": one.percent,
            }
            for one in traffic.rules
        ],
        "sticky": traffic.sticky,
        "shadow": None
        if traffic.shadow is None
        else {"version": numbers[traffic.shadow.version_id], "share": traffic.shadow.share},
    }


def references(patch: Mapping[str, Any]) -> set[str]:
    """Return what a patch calls versions by, numbers and aliases alike; what is no name at all is left to `rerouted`."""
    split, rules, shadow = patch.get("split"), patch.get("rules"), patch.get("shadow")
    named: list[object] = list(split) if isinstance(split, Mapping) else []
    named += [one.get("version") for one in rules if isinstance(one, Mapping)] if isinstance(rules, list) else []
    named += [shadow.get("version")] if isinstance(shadow, Mapping) else []
    return {str(one) for one in named if isinstance(one, int | str) and not isinstance(one, bool)}


def spelled_out(patch: Mapping[str, Any], numbers: Mapping[str, str]) -> dict[str, Any]:
    """Return a patch with the numbers of versions where it has aliases, which may point elsewhere later."""
    said = dict(patch)
    if isinstance(said.get("split"), Mapping):
        said["split"] = {numbers.get(name, name): share for name, share in said["split"].items()}
    if isinstance(said.get("rules"), list):
        said["rules"] = [_numbered(one, numbers) if isinstance(one, Mapping) else one for one in said["rules"]]
    if isinstance(said.get("shadow"), Mapping):
        said["shadow"] = _numbered(said["shadow"], numbers)
    return said


def rerouted(present: Traffic, patch: Mapping[str, Any], versions: Mapping[str, str], *, promoted: str | None) -> Traffic:
    """Return the traffic with `patch` merged into it; raises `InvalidTraffic` with a field error for each fault.

    `versions` are ids of versions by what the patch calls them, `promoted` is the one that answers whoever is left.
    """
    reader = _Reader(versions, promoted)
    for name in patch.keys() - set(_FIELDS):
        reader.unknown(f"traffic.{name}", name, _FIELDS)
    splits = reader.splits(present.splits, patch["split"]) if "split" in patch else present.splits
    rules = reader.rules(patch["rules"]) if "rules" in patch else present.rules
    sticky = reader.sticky(patch["sticky"]) if "sticky" in patch else present.sticky
    shadow = reader.shadow(present.shadow, patch["shadow"]) if "shadow" in patch else present.shadow
    made = Traffic(splits, rules, sticky, shadow)
    if promoted is None and made != Traffic():
        reader.fault("traffic", "nothing_promoted", "No version answers here yet: promote one first.")
    if reader.faults:
        raise InvalidTraffic(fields=tuple(sorted(reader.faults, key=lambda one: one.path)))
    return made


def without(traffic: Traffic, version_id: str) -> Traffic:
    """Return the traffic once this version is the promoted one, which has what it had a share of, and needs no shadow."""
    return Traffic(
        tuple(one for one in traffic.splits if one.version_id != version_id),
        traffic.rules,
        traffic.sticky,
        None if traffic.shadow is not None and traffic.shadow.version_id == version_id else traffic.shadow,
    )


def answering(promoted: str | None, traffic: Traffic) -> dict[str, tuple[float, int]]:
    """Return what versions answer anybody: the share in percent and the number of rules of each, by its id."""
    shares = {one.version_id: _milli(one.share) for one in traffic.splits}
    if promoted is not None:
        shares[promoted] = _WHOLE * 10**_DECIMALS - sum(shares.values())
    for one in traffic.rules:
        shares.setdefault(one.version_id, 0)
    return {
        version: (share / 10**_DECIMALS, sum(one.version_id == version for one in traffic.rules))
        for version, share in shares.items()
    }


def gaining(promoted: str | None, before: Traffic, after: Traffic) -> set[str]:
    """Return the versions beside the promoted one to which a change gives users: by a larger share, or by a rule.

    A rule gives nobody anything new that was there before, in the same order, with as large a part of the same requests. Where
    a rule for the promoted version goes, or goes behind others, all others may gain what it kept from them.
    """
    had = {one.version_id: _milli(one.share) for one in before.splits}
    gained = {one.version_id for one in after.splits if _milli(one.share) > had.get(one.version_id, 0)}
    left, passed = list(before.rules), []
    for rule in after.rules:
        if rule.version_id == promoted and rule not in left:
            continue
        while left and not (_covers(left[0], rule) if rule.version_id != promoted else left[0] == rule):
            passed.append(left.pop(0))
        if left:
            left.pop(0)
        else:
            gained.add(rule.version_id)
    if any(one.version_id == promoted for one in (*passed, *left)):
        gained |= {one.version_id for one in after.splits} | {one.version_id for one in after.rules}
    return gained - {promoted}


def _numbered(part: Mapping[str, Any], numbers: Mapping[str, str]) -> dict[str, Any]:
    return {name: numbers.get(str(value), value) if name == "version" else value for name, value in part.items()}


def _covers(before: Rule, after: Rule) -> bool:
    same = (before.version_id, before.name, before.header, before.values) == (
        after.version_id,
        after.name,
        after.header,
        after.values,
    )
    fewer = set(after.callers) <= set(before.callers) if before.callers and after.callers else before.callers == after.callers
    return same and fewer and after.percent <= before.percent


def _milli(share: float) -> int:
    """Return a share in thousandths of a percent, which add up exactly."""
    return round(share * 10**_DECIMALS)


class _Reader:
    """Reads the parts of a patch, and collects what is wrong with them."""

    def __init__(self, versions: Mapping[str, str], promoted: str | None) -> None:
        self.faults: list[FieldError] = []
        self._versions = versions
        self._promoted = promoted

    def fault(self, place: str, code: str, message: str) -> None:
        self.faults.append(FieldError(place[:_LONGEST_PLACE], code, message))

    def unknown(self, place: str, name: str, known: Sequence[str]) -> None:
        message = f"There is no such setting.{did_you_mean(name, known)} There are: {', '.join(known)}."
        self.fault(place, "unknown_setting", message)

    def splits(self, present: tuple[Split, ...], patch: object) -> tuple[Split, ...]:
        place = "traffic.split"
        if patch is None:
            return ()
        if not isinstance(patch, Mapping):
            self.fault(place, "wrong_type", "Shares by version go here, such as {'4': 5}.")
            return present
        shares = {one.version_id: one.share for one in present}
        seen: set[str] = set()
        for name, given in patch.items():
            version = self._version(f"{place}.{name}", name)
            share = 0.0 if given is None else self._percent(f"{place}.{name}", given)
            if version is None or share is None:
                continue
            if version in seen:
                self.fault(f"{place}.{name}", "twice", "This version is named twice here, once by an alias.")
            if version == self._promoted and share:
                self.fault(f"{place}.{name}", "promoted", "This version is the promoted one, which has what is left.")
            seen.add(version)
            shares[version] = share
        made = tuple(Split(version, share) for version, share in shares.items() if share)
        if len(made) > MOST_SPLITS:
            self.fault(place, "too_many", f"At most {MOST_SPLITS} versions have a share.")
        if sum(_milli(one.share) for one in made) > _WHOLE * 10**_DECIMALS:
            self.fault(place, "more_than_all", "The shares add up to more than 100.")
        return made

    def rules(self, given: object) -> tuple[Rule, ...]:
        place = "traffic.rules"
        if given is None:
            return ()
        if not isinstance(given, list):
            self.fault(place, "wrong_type", "A list of rules goes here: it takes the place of the present one.")
            return ()
        if len(given) > MOST_RULES:
            self.fault(place, "too_many", f"At most {MOST_RULES} rules go here.")
        made = [self._rule(f"{place}[{at}]", one) for at, one in enumerate(given[:MOST_RULES])]
        names = [one.name for one in made if one is not None and one.name]
        for at, rule in enumerate(made):
            if rule is not None and names.count(rule.name) > 1:
                self.fault(f"{place}[{at}].name", "twice", "Two rules have this name.")
        return tuple(one for one in made if one is not None)

    def sticky(self, given: object) -> str:
        if given is None:
            return ""
        kind, colon, header = given.partition(":") if isinstance(given, str) else ("-", "", "")
        if (kind == "header" and _HEADER.fullmatch(header)) or (kind in {"", "caller", "key"} and not colon):
            return str(given)
        self.fault("traffic.sticky", "not_a_choice", f"One of {_STICKY} goes here.")
        return ""

    def shadow(self, present: Split | None, patch: object) -> Split | None:
        place = "traffic.shadow"
        if patch is None:
            return None
        if not self._is_object(place, patch, _OF_SHADOW):
            return present
        assert isinstance(patch, Mapping)  # noqa: S101 - `_is_object` has looked, and types do not show it
        version = None if present is None else present.version_id
        if "version" in patch:
            version = self._version(f"{place}.version", patch["version"])
        elif version is None:
            self.fault(f"{place}.version", "missing", "A shadow is a version: say which.")
        share = float(_WHOLE) if present is None else present.share
        if patch.get("share") is not None:
            share = self._percent(f"{place}.share", patch["share"]) or 0.0
        elif "share" in patch:
            share = float(_WHOLE)
        if version is not None and version == self._promoted:
            self.fault(f"{place}.version", "promoted", "This version is the promoted one: it answers as it is.")
        return None if version is None or not share else Split(version, share)

    def _rule(self, place: str, given: object) -> Rule | None:
        if not self._is_object(place, given, _OF_RULE):
            return None
        assert isinstance(given, Mapping)  # noqa: S101 - as in `shadow`
        said = {name: value for name, value in given.items() if value is not None}
        if "version" not in said:
            self.fault(f"{place}.version", "missing", "A rule is for a version: say which.")
            return None
        version = self._version(f"{place}.version", said["version"])
        name = self._text(f"{place}.name", said.get("name", ""))
        header = self._text(f"{place}.header", said.get("header", "")).lower()
        callers, values = (tuple(self._texts(f"{place}.{one}", said.get(one, []))) for one in ("callers", "values"))
        percent = self._percent(f"{place}.percent", said.get("percent", float(_WHOLE)))
        for at, caller in enumerate(callers):
            if not _CALLER.fullmatch(caller):
                message = "The id of a person, service, key or group goes here: it begins with usr_, key_ or grp_."
                self.fault(f"{place}.callers[{at}]", "no_id", message)
        if header and not _HEADER.fullmatch(header):
            self.fault(f"{place}.header", "no_header", "This is no name of a header.")
        if values and not header:
            self.fault(f"{place}.values", "no_header", "They are values of a header: say which.")
        if not callers and not header and percent == _WHOLE:
            self.fault(place, "everybody", "This rule is for all requests: promote the version, or name callers or a header.")
        return None if version is None or percent is None else Rule(version, name, callers, header, values, percent)

    def _is_object(self, place: str, given: object, fields: Sequence[str]) -> bool:
        if not isinstance(given, Mapping):
            self.fault(place, "wrong_type", f"An object goes here, with {', '.join(fields)}.")
            return False
        for name in given.keys() - set(fields):
            self.unknown(f"{place}.{name}", name, fields)
        return True

    def _version(self, place: str, given: object) -> str | None:
        named = str(given) if isinstance(given, int | str) and not isinstance(given, bool) else ""
        if named not in self._versions:
            self.fault(place, "unknown_version", "This model has no version of this number, and no alias of this name.")
            return None
        return self._versions[named]

    def _percent(self, place: str, given: object) -> float | None:
        """Return a part in percent that has at most three decimals, so that parts add up to what people see."""
        if isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given) and 0 <= given <= _WHOLE:
            if Decimal(repr(given)) == round(Decimal(repr(given)), _DECIMALS):
                return float(given)
            self.fault(place, "too_fine", f"A percentage has at most {_DECIMALS} decimals.")
        else:
            self.fault(place, "out_of_range", "A percentage goes here: a number from 0 to 100.")
        return None

    def _text(self, place: str, given: object) -> str:
        if isinstance(given, str) and len(given) <= _LONGEST_TEXT and given.isprintable():
            return given
        self.fault(place, "wrong_type", f"A text of at most {_LONGEST_TEXT} printable characters goes here.")
        return ""

    def _texts(self, place: str, given: object) -> Iterator[str]:
        if not isinstance(given, list) or len(given) > MOST_NAMED:
            self.fault(place, "wrong_type", f"A list of at most {MOST_NAMED} texts goes here.")
            return
        yield from (self._text(f"{place}[{at}]", one) for at, one in enumerate(given))
