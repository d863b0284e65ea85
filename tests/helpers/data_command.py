"""The data command, run as a user runs it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope='session')
def prepare_data(run_command: Callable[..., Any]) -> Callable[..., Any]:
    """``prepare_data('check', 'HR:LR', cwd=folder)``: runs ``scripts/prepare_data.py`` in a folder to its end.

    Other keywords are those of ``command_server.arrange``.
    """

    def run(*arguments: str | Path, cwd: Path, **accident: Any) -> Any:
        env = {key: value for key, value in os.environ.items() if key != 'CLSD_DATA'}
        return run_command('scripts/prepare_data', *arguments, cwd=cwd, env=env, accident=accident)

    return run
