"""The same work on many images, in as many threads as there are processors."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], progress: Callable[[Any], Iterable[Any]] = iter
) -> Iterator[Result]:
    """Results of ``work`` for all items, in order; what is not begun when one fails, or is not wanted, is not done.

    Decoding, resizing and encoding images let other threads run meanwhile.

    Args:
        work: What to do.
        items: With what.
        progress: Passes on the items, as a progress bar does.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for _, result in zip(progress(items), threads.map(work, items), strict=True):
            yield result
