"""What can go wrong with the audit trail."""

from modelkeep.contracts.errors import Forbidden, Invalid, NotFound


class SubjectNotFound(NotFound):
    """No entry of the audit trail names this person, or none does any more."""

    code = "audit_subject_not_found"


class OwnTracks(Forbidden):
    """You may not erase yourself from the audit trail: another administrator may."""

    code = "audit_own_tracks"


class ReasonNeeded(Invalid):
    """An erasure needs a reason of 1 to 500 characters; it stays in the trail, so it must not name the person."""

    code = "audit_reason_needed"
