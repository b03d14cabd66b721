"""The one exception that means "the user asked for something that cannot be done"."""


class UserError(Exception):
    """A mistake that the person at the keyboard can mend; ends the run with exit status 2 and no traceback.

    The message says what was asked, what was found, and what to do.
    """
