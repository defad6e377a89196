"""Threads: results in order, errors raised, and none left behind by Ctrl-C."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from recsys.system.threads import delay_interrupts, map_in_order


def press_ctrl_c():
    """As the terminal does; the handler has run when the next line is reached."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)


def slow_square(number):
    time.sleep(0.002 * (5 - number % 5))
    return number * number


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_results_come_in_the_order_of_the_inputs(threads):
    assert list(map_in_order(slow_square, range(20), threads)) == [number * number for number in range(20)]
    assert list(map_in_order(slow_square, [], threads)) == []


def test_no_more_work_is_started_than_results_may_wait():
    started = []
    results = map_in_order(started.append, range(100), threads=2, ahead=4)
    next(results)
    assert len(started) <= 5
    results.close()
    assert len(started) <= 5


def test_an_error_of_the_work_is_raised_and_no_thread_is_left():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(map_in_order(lambda number: 1 // number, [2, 1, 0, 1], 2))
    assert threading.active_count() == before


def test_every_thread_is_prepared_before_its_first_work():
    here = threading.local()
    assert (
        list(map_in_order(lambda _: here.ready, range(8), 4, prepare=lambda: setattr(here, "ready", True)))
        == [True] * 8
    )


def test_ctrl_c_goes_through_and_no_thread_is_left():
    usual, before = signal.getsignal(signal.SIGINT), threading.active_count()
    taken = []
    with pytest.raises(KeyboardInterrupt):
        for result in map_in_order(slow_square, range(1000), 2):
            taken.append(result)
            press_ctrl_c()
    assert taken == [0]
    assert threading.active_count() == before
    assert signal.getsignal(signal.SIGINT) is usual


@pytest.mark.parametrize("place", ["submit", "shutdown"])
def test_ctrl_c_waits_while_threads_are_started_and_waited_for(place, monkeypatch):
    whole = []

    def and_ctrl_c(self, *args, **more):
        press_ctrl_c()
        whole.append(plain(self, *args, **more))
        return whole[-1]

    plain = getattr(ThreadPoolExecutor, place)
    monkeypatch.setattr(ThreadPoolExecutor, place, and_ctrl_c)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        list(map_in_order(slow_square, range(3), 2))
    assert len(whole) == 1
    assert threading.active_count() == before


def test_a_generator_that_is_not_resumed_delays_no_interrupt():
    usual = signal.getsignal(signal.SIGINT)
    results = map_in_order(slow_square, range(9))
    assert next(results) == 0
    assert signal.getsignal(signal.SIGINT) is usual
    results.close()


def test_a_delayed_ctrl_c_comes_at_the_end_of_the_block():
    usual, reached = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), delay_interrupts():
        press_ctrl_c()
        reached.append("end")
    assert reached == ["end"]
    assert signal.getsignal(signal.SIGINT) is usual


def test_in_nested_blocks_it_comes_at_the_end_of_the_outer_one():
    reached = []
    with pytest.raises(KeyboardInterrupt), delay_interrupts():
        with delay_interrupts():
            press_ctrl_c()
            reached.append("inner")
        reached.append("outer")
    assert reached == ["inner", "outer"]


def test_sigterm_is_delayed_where_it_has_a_handler():
    usual = signal.signal(signal.SIGTERM, signal.default_int_handler)
    reached = []
    try:
        with pytest.raises(KeyboardInterrupt), delay_interrupts():
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("the end")
        assert reached == ["the end"]
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, usual)


def test_a_second_ctrl_c_is_not_delayed():
    with pytest.raises(KeyboardInterrupt), delay_interrupts():
        press_ctrl_c()
        press_ctrl_c()
        pytest.fail("it waited")


def test_ctrl_c_is_not_lost_to_an_error():
    usual = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), delay_interrupts():
        press_ctrl_c()
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is usual


def test_an_ignored_signal_stays_ignored_and_other_threads_touch_no_signal():
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with delay_interrupts():
            press_ctrl_c()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, usual)
    worker = threading.Thread(target=lambda: seen.append(list(map_in_order(slow_square, range(3)))))
    seen = []
    worker.start()
    worker.join()
    assert seen == [[0, 1, 4]]
