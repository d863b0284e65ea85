"""Errors that are the user's to mend: told in one line, without a traceback, with exit code 2."""

import difflib
import signal
from collections.abc import Iterable

USER_MISTAKE = 2
FAILURE = 1
SIGNALLED = 128  # plus the number of the signal, as shells have it
# What constructors and networks raise for arguments or images that they cannot have.
FAULTS = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)
# The words of CUDA, of the CPU's allocators, of ONNX Runtime, and of oneDNN, which does not say why.
OUT_OF_MEMORY = (
    'out of memory',
    "can't allocate memory",
    'not enough memory',
    'Failed to allocate memory',
    'could not create a primitive',
    'could not create a memory object',
)


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
        self.exit_code = SIGNALLED + number


def exit_code(error: BaseException) -> int:
    """The exit code of a process that ends by this error."""
    if isinstance(error, StopRequested | PeerError):
        return error.exit_code
    return USER_MISTAKE if isinstance(error, UserError) else FAILURE


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known name nearest to ``name``, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{match[0]}'?)" if match else ''


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something, or its kind if none does."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
