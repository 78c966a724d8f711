"""What can be wrong with feedback as a whole; single items are refused one by one."""

from modelkeep.contracts.errors import Invalid


class TooMuchFeedback(Invalid):
    """Feedback is told of 1 to 1,000 predictions at once: send it in parts."""

    code = "too_much_feedback"
