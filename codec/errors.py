"""The one error that is meant for people."""


class UserError(Exception):
    """Something a person can put right. The message is one sentence: what happened, to which file, what to do.

    The command line prints it without a traceback and exits with status 2.
    """
