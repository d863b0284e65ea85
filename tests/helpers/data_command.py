"""The data command, run as a user runs it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='session')
def prepare_data(command_server: Any) -> Callable[..., Any]:
    """``prepare_data('check', 'HR:LR', cwd=folder)``: runs ``scripts/prepare_data.py`` in a folder to its end.

    Other keywords are those of ``command_server.arrange``.
    """

    def run(*arguments: str | Path, cwd: Path, **accident: Any) -> Any:
        env = {key: value for key, value in os.environ.items() if key != 'CLSD_DATA'}
        argv = [str(REPO / 'scripts' / 'prepare_data.py'), *map(str, arguments)]
        return command_server.run([{'argv': argv, 'cwd': str(cwd), 'env': env, 'accident': accident}])[0]

    return run
