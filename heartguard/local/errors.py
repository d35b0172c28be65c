"""How setting up the stack fails: with a message for the person at the keyboard."""

import errno


class SetupError(Exception):
    """The stack cannot be started or reached; the message says why and what to do."""


def explain(error: OSError, doing: str) -> SetupError:
    """``error`` in words that help, ``doing`` being what was tried."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return SetupError(f"The disk is full: {doing} failed. Free some space, or set HEARTGUARD_DATA elsewhere.")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return SetupError(f"Not allowed: {doing} failed ({error}). Set HEARTGUARD_DATA to a folder of yours.")
        case _:
            return SetupError(f"{doing[:1].upper()}{doing[1:]} failed: {error}")
