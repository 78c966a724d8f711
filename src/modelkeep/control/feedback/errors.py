"""What can be wrong with feedback as a whole; single items are refused one by one."""

from modelkeep.contracts.errors import Invalid


class DeploymentNeeded(Invalid):
    """A version's number says which one it is with its deployment alone: name that, or the version's id."""

    code = "deployment_needed"
