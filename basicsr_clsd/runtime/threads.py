"""The same work on many images in threads, which decoding, resizing, measuring and encoding do not keep waiting."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Semaphore
from typing import Any, TypeVar

POLL_S = 0.1  # how often to look whether anybody still takes what is made

Item = TypeVar('Item')
Result = TypeVar('Result')


def in_threads(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    progress: Callable[[Any], Iterable[Any]] = iter,
    threads: int | None = None,
) -> Iterator[Result]:
    """Results of ``work`` for all items, in order; what is not begun when one fails, or is not wanted, is not done.

    Items are asked for in the caller's thread, and no more than two for each thread are on their way, so that neither
    they nor their results need be in memory together.

    Args:
        work: What to do.
        items: With what.
        progress: Passes on the items, as a progress bar does.
        threads: How many; None: as many as there are processors.
    """
    count = threads or os.cpu_count() or 1
    begun: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for item in progress(items):
                if len(begun) == 2 * count:
                    yield begun.popleft().result()
                begun.append(pool.submit(work, item))
            while begun:
                yield begun.popleft().result()
        finally:
            for each in begun:
                each.cancel()


def hand_over(
    items: Iterable[Item], take: Callable[[Iterator[Item]], Result], pool: ThreadPoolExecutor
) -> Future[Result]:
    """Make items in this thread for a thread of ``pool`` to take, which may be busy with earlier ones.

    No more than two items are in memory: the one that is made, and the one that is taken.

    Args:
        items: Made here, and no further when ``take`` has ended; an error in making them is raised there and here.
        take: What is done with them there.
        pool: Does it.

    Returns:
        What comes of it, as soon as all items are made.
    """
    given: SimpleQueue[tuple[Item] | BaseException | None] = SimpleQueue()
    wanted = Semaphore(0)

    def taken() -> Iterator[Item]:
        wanted.release()
        while (item := given.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
            wanted.release()

    result = pool.submit(lambda: take(taken()))

    def give(item: tuple[Item] | BaseException | None) -> bool:
        """Whether anybody takes it."""
        while not result.done():
            if wanted.acquire(timeout=POLL_S):
                given.put(item)
                return True
        return False

    try:
        if all(give((item,)) for item in items):
            give(None)
    except BaseException as error:
        give(error)
        raise
    return result
