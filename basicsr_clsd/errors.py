"""Errors that are the user's to mend: told in one line, without a traceback, with exit code 2."""

import difflib
import signal
from collections.abc import Iterable

USER_MISTAKE = 2
FAILURE = 1


class UserError(Exception):
    """A mistake in what the user passed in: an option, a path, an image, a checkpoint. The text is one line."""


class NonFiniteLossError(RuntimeError):
    """Too many steps in a row were skipped for a loss or gradient that is not finite."""


class PeerError(Exception):
    """Another process of the run failed, and says why; this one only has to end, with the same exit code.

    Args:
        code: That exit code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f'another process ends with exit code {code}')
        self.exit_code = code


class StopRequested(Exception):  # noqa: N818  (nothing went wrong)
    """A signal asked the run to end; the state has been saved.

    Args:
        number: The signal.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f'ended by {number.name} after saving; --auto_resume goes on from here')
        self.exit_code = 128 + number


def exit_code(error: BaseException) -> int:
    """The exit code of a process that ends by this error."""
    if isinstance(error, StopRequested | PeerError):
        return error.exit_code
    return USER_MISTAKE if isinstance(error, UserError) else FAILURE


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known name nearest to ``name``, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{match[0]}'?)" if match else ''
