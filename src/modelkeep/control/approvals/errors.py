"""What approvals refuse."""

from modelkeep.contracts.errors import Conflict, Forbidden, NotFound


class ApprovalNotFound(NotFound):
    """There is no approval with this id."""

    code = "approval_not_found"


class ApprovalOver(Conflict):
    """This approval was refused or used, or its time is over: whoever wants it asks anew."""

    code = "approval_over"


class SecondPersonNeeded(Forbidden):
    """Somebody else than who asked has to approve this, and a person: neither their own keys nor a service account."""

    code = "second_person_needed"
