"""Lets BasicSR's setup.py build on Python 3.13 and newer.

That setup.py reads its version with `exec(code)` inside a function followed by `locals()['__version__']`. Since Python
3.13 (PEP 667) each call to `locals()` in a function returns a fresh snapshot, so the names that a bare `exec` binds are
lost and the build stops with `KeyError: '__version__'`.

Python imports a module of this name at start-up when its folder is on PYTHONPATH; `scripts/setup.sh` puts it there for
the one command that builds BasicSR. From then on a bare `exec` works on the caller's own `frame.f_locals`, which is
written through to the frame, so that the caller's next `locals()` has the names. Calls that name their namespaces, and
bare calls at module or class level, do what they always did.
"""

import builtins
import sys

_builtin_exec = builtins.exec


def _exec_in_caller(source, globals=None, locals=None, /, **closure):
    # Resolved here because the built-in would take this function's frame for its caller.
    if globals is None:
        caller = sys._getframe(1)
        globals = caller.f_globals
        if locals is None:
            locals = caller.f_locals
    _builtin_exec(source, globals, locals, **closure)


builtins.exec = _exec_in_caller
