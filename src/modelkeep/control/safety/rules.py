"""Switches as values, and what they let through."""

from datetime import datetime
from typing import Final, Literal, get_args

import msgspec

from modelkeep.contracts import confinement
from modelkeep.contracts.access import INSTALLATION, Place, Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.confinement import Level
from modelkeep.contracts.errors import Invalid
from modelkeep.contracts.runner import Format
from modelkeep.control.approvals.rules import Act
from modelkeep.control.safety.errors import CodeFormatsOff, NotAcceptable

CODE_FORMATS: Final = "code_formats"
SANDBOX: Final = "sandbox"
LONGEST_REASON: Final = 1000

Accepted = Literal["L1", "L0"]


class Switch(msgspec.Struct, frozen=True):
    """A switch, as it was last set: `value` is its position, "" the safe one, in which it is until somebody sets it."""

    name: str
    value: str = ""
    reason: str = ""
    set_by: str = ""
    set_at: datetime | None = None


class Safety(msgspec.Struct, frozen=True):
    """All switches."""

    code_formats: Switch = Switch(CODE_FORMATS)
    sandbox: Switch = Switch(SANDBOX)

    @property
    def code_allowed(self) -> bool:
        """Whether files that may run code can be uploaded."""
        return self.code_formats.value == "on"

    @property
    def accepted(self) -> Level | None:
        """The level of the lock-down that is enough for every model; None where each format's own holds."""
        return confinement.level(self.sandbox.value)

    @property
    def accepted_name(self) -> Accepted | None:
        """The same by its short name."""
        return next((one for one in get_args(Accepted) if one == self.sandbox.value), None)

    def check(self, actor: Actor, place: Place, form: Format) -> None:
        """Refuse a file of this format from whom may not upload it: `CodeFormatsOff`, or `Forbidden`."""
        if form.safety == "code":
            what = f"A file of the format {form.name} can run code when it is loaded"
            self._check_code(actor, place, what, "convert the model to ONNX")

    def check_hooks(self, actor: Actor, place: Place) -> None:
        """Refuse hooks from whom may not upload them, as files that may run code: `CodeFormatsOff`, or `Forbidden`."""
        self._check_code(actor, place, "Hooks are code", "leave them out")

    def _check_code(self, actor: Actor, place: Place, what: str, instead: str) -> None:
        if not self.code_allowed:
            raise CodeFormatsOff(
                f"{what}, and this installation takes no such files. "
                f"An administrator allows them with `modelkeep safety allow-code`; or {instead}."
            )
        actor.need(Scope.MODELS_CODE, place)


def check_reason(text: str) -> str:
    """Return the reason for a switch, which has to be given."""
    if not text.strip() or len(text) > LONGEST_REASON:
        raise Invalid(f"Say why, in 1 to {LONGEST_REASON} characters: the reason is kept with the change.")
    return text.strip()


def overriding(was: Switch, wanted: Switch) -> Act | None:
    """Return setting a switch as what two people may have to agree to; None where it becomes no less safe.

    Positions sort as levels do: from the lowest level to the highest; only "", the safe one, is above all.
    """
    if not wanted.value or (was.value and wanted.value >= was.value):
        return None
    said = {CODE_FORMATS: "Take files that can run code", SANDBOX: f"Accept the lock-down {wanted.value} for every model"}
    return Act(
        "override",
        f"safety.{wanted.name}",
        wanted.name,
        f"{said[wanted.name]}: {wanted.reason}",
        Scope.ADMIN,
        INSTALLATION,
        seen=(was, wanted.value),
    )


def check_acceptable(wanted: Accepted, allowed: str) -> None:
    """Refuse a level that the installation's settings do not let administrators accept."""
    if not allowed or wanted < allowed:  # short names sort as levels do
        raise NotAcceptable(
            f"{wanted} cannot be accepted: the setting runners.unsafe_allow_level, on the machine itself, must allow it first."
        )
