"""What the switches refuse."""

from modelkeep.contracts.errors import Conflict, Forbidden


class CodeFormatsOff(Forbidden):
    """This installation takes no files that can run code when they are loaded: an administrator may allow them."""

    code = "code_formats_off"


class NotAcceptable(Conflict):
    """The installation's own settings do not allow this: change them on the machine first."""

    code = "not_acceptable"
