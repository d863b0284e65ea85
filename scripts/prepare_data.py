"""Runs ``basicsr_clsd/commands/prepare.py`` of this checkout, wherever it is started."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr_clsd.commands.prepare import main  # noqa: E402

main()
