"""One door for all thread counts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from nembp.errors import ArchitectureError
from nembp.threads import blas_threads, run_parallel, single_threaded_blas, thread_count, threads


def test_blas_gets_its_threads_back() -> None:
    with threads(2):
        with pytest.raises(ZeroDivisionError), single_threaded_blas():
            raise ZeroDivisionError
        assert blas_threads() == 2
        with single_threaded_blas():
            assert (blas_threads(), thread_count()) == (1, 2)
            with single_threaded_blas():
                assert blas_threads() == 1
            assert blas_threads() == 1
        assert blas_threads() == 2


def test_two_trainings_at_once_give_blas_its_threads_back() -> None:
    """The first to begin ends first, and the other must not restore the 1 that it found."""
    begun, leave = threading.Event(), threading.Event()

    def other() -> None:
        with single_threaded_blas():
            begun.set()
            assert leave.wait(10.0)

    with threads(2):
        worker = threading.Thread(target=other)
        with single_threaded_blas():
            worker.start()
            assert begun.wait(10.0)
        leave.set()
        worker.join()
        assert blas_threads() == 2


def test_items_run_once_each_and_errors_come_out() -> None:
    out = np.zeros(5)

    def add(i: int) -> None:
        out[i] += i + 1

    run_parallel(add, range(5))
    np.testing.assert_array_equal(out, [1, 2, 3, 4, 5])

    def fail(i: int) -> None:
        if i == 1:
            raise ArchitectureError("the second lane's")

    with pytest.raises(ArchitectureError, match="second lane"):
        run_parallel(fail, range(2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_threads_of_its_own():
    code = """if True:
        import os, signal, time
        from nembp.threads import run_parallel
        done = []
        run_parallel(done.append, [1, 2, 3])
        time.sleep(0.1)  # its threads wait for more
        if (pid := os.fork()) == 0:
            signal.alarm(9)  # rather than wait for ever
            run_parallel(done.append, [4, 5])
            os._exit(sorted(done) != [1, 2, 3, 4, 5])
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, check=True)
