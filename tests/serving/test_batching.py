import threading

import pytest

from recsys.serving.batching import MicroBatcher, QueueFullError


class Doubler:
    """Doubles numbers, holds the first batch until told to go on, and remembers the batches."""

    def __init__(self):
        self.batches, self.entered, self.go_on = [], threading.Event(), threading.Event()

    def __call__(self, numbers):
        self.batches.append(list(numbers))
        self.entered.set()
        assert self.go_on.wait(10)
        if 13 in numbers:
            raise ValueError("thirteen")
        return [2 * number for number in numbers]


def test_what_waits_is_answered_together_in_order():
    double = Doubler()
    batcher = MicroBatcher(double, largest=3)
    first = batcher.submit(0)
    assert double.entered.wait(10)
    rest = [batcher.submit(number) for number in range(1, 6)]
    assert len(batcher) == 5
    double.go_on.set()
    assert [future.result(10) for future in (first, *rest)] == [0, 2, 4, 6, 8, 10]
    assert double.batches == [[0], [1, 2, 3], [4, 5]]


def test_one_that_fails_does_not_fail_the_others():
    double = Doubler()
    batcher = MicroBatcher(double)
    batcher.submit(0)
    assert double.entered.wait(10)
    good, bad, other = (batcher.submit(number) for number in (1, 13, 2))
    double.go_on.set()
    assert (good.result(10), other.result(10)) == (2, 4)
    with pytest.raises(ValueError, match="thirteen"):
        bad.result(10)


def test_no_more_may_wait_than_the_limit():
    double = Doubler()
    batcher = MicroBatcher(double, waiting=2)
    batcher.submit(0)
    assert double.entered.wait(10)
    batcher.submit(1)
    kept = batcher.submit(2)
    with pytest.raises(QueueFullError, match="fewer than 2 waiting requests"):
        batcher.submit(3)
    double.go_on.set()
    assert kept.result(10) == 4
    assert batcher.submit(5).result(10) == 10


def test_who_no_longer_waits_is_passed_over():
    double = Doubler()
    batcher = MicroBatcher(double)
    batcher.submit(0)
    assert double.entered.wait(10)
    gone, here = batcher.submit(1), batcher.submit(2)
    assert gone.cancel()
    double.go_on.set()
    assert here.result(10) == 4 and double.batches == [[0], [2]]


def test_closing_answers_what_waits_and_takes_nothing_more():
    double = Doubler()
    double.go_on.set()
    batcher = MicroBatcher(double)
    futures = [batcher.submit(number) for number in range(3)]
    batcher.close()
    assert [future.result(0) for future in futures] == [0, 2, 4]
    with pytest.raises(QueueFullError):
        batcher.submit(1)
