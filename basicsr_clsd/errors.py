"""Errors that are the user's to mend: told in one line, without a traceback, with exit code 2."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user passed in: an option, a path, an image, a checkpoint. The text is one line."""


class NonFiniteLossError(RuntimeError):
    """A loss term became NaN or infinite; the text names the term and the files of the batch."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known name nearest to ``name``, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{match[0]}'?)" if match else ''
