"""What went wrong in the user's words: one sentence, exit status 2, never a traceback."""


class UserError(ValueError):
    """A mistake of the user's: the message says where, what was expected and what came."""
