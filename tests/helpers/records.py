"""What tests read of ``metrics.jsonl``."""

import json
from pathlib import Path
from typing import Any

TIMING = ('it_per_s', 'data_wait', 'memory_gib')


def rows(root: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The rows of the training in a folder, of one kind or all."""
    found = [json.loads(line) for line in (root / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()]
    return [row for row in found if kind in (None, row['kind'])]


def reproducible_rows(root: Path) -> list[dict[str, Any]]:
    """What must be the same, to the bit, in a run that was resumed: all but starts and timing."""
    found = [row for row in rows(root) if row['kind'] != 'start']
    return [{key: value for key, value in row.items() if key not in TIMING} for row in found]
