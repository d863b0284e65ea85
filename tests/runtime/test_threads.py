"""Work in threads: results in order, and nothing more is begun once it is over."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from basicsr_clsd.runtime import threads
from basicsr_clsd.runtime.threads import hand_over, in_threads

WHOLE = -1


def test_results_come_in_the_order_of_the_items():
    later = threading.Event()

    def work(number: int) -> int:
        if number == 0 and (os.cpu_count() or 1) > 1:
            later.wait(60)
        later.set()
        return number * number

    seen: list[int] = []

    def progress(items: range) -> Iterator[int]:
        for item in items:
            seen.append(item)
            yield item

    assert list(in_threads(work, range(50), progress)) == [number * number for number in range(50)]
    assert seen == list(range(50))
    assert list(in_threads(work, [])) == []


@pytest.fixture
def when_ending(monkeypatch: pytest.MonkeyPatch) -> Callable[[threading.Event], None]:
    """``when_ending(event)``: have the event set when the threads are only waited for."""

    def arrange(event: threading.Event) -> None:
        class Executor(threads.ThreadPoolExecutor):
            def shutdown(self, *args: Any, **kwargs: Any) -> None:
                event.set()
                super().shutdown(*args, **kwargs)

        monkeypatch.setattr(threads, 'ThreadPoolExecutor', Executor)

    return arrange


@pytest.mark.parametrize('fails', [True, False])
def test_what_has_not_begun_is_not_done(when_ending, fails):
    """Whether one fails, or whoever wants the results is interrupted."""
    over, begun = threading.Event(), []
    when_ending(over)

    def work(number: int) -> int:
        begun.append(number)
        if number == 1 and fails:
            raise ValueError('broken')
        assert number == 0 or over.wait(60)
        return number

    results = in_threads(work, range(1000))
    assert next(results) == 0
    if fails:
        with pytest.raises(ValueError, match='broken'):
            next(results)
    else:
        results.close()
    assert len(begun) <= (os.cpu_count() or 1) + 2


def test_items_are_taken_while_the_next_are_made():
    taken, made = threading.Event(), []

    def items() -> Iterator[int]:
        for number in range(6):
            if number == 1:
                assert taken.wait(60)
            made.append(number)
            yield number

    def take(numbers: Iterator[int]) -> list[int]:
        found = []
        for number in numbers:
            taken.set()
            assert len(made) <= number + 2
            found.append(number)
        return found

    with ThreadPoolExecutor(1) as pool:
        first = hand_over(items(), take, pool)
        second = hand_over(range(6), list, pool)
        assert first.result() == second.result() == list(range(6))


@pytest.mark.parametrize('maker', [True, False])
def test_an_error_ends_both_who_makes_and_who_takes(maker):
    def items() -> Iterator[int]:
        for number in range(1000):
            seen.append(number)
            if maker and number == 2:
                raise ValueError('broken')
            yield number

    def take(numbers: Iterator[int]) -> None:
        for number in numbers:
            if not maker and number == 2:
                raise ValueError('broken')
        seen.append(WHOLE)  # which a file must not be called

    seen: list[int] = []
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match='broken'):
        hand_over(items(), take, pool).result()
    assert len(seen) <= 5 and WHOLE not in seen


def test_items_are_asked_for_as_they_are_needed():
    asked = []

    def items() -> Iterator[int]:
        for number in range(100):
            asked.append(number)
            yield number

    for result in in_threads(lambda number: number, items(), threads=2):
        assert len(asked) <= result + 5
    assert asked == list(range(100))
