"""End a host whose event loop hangs, or that does not exit when it should.

Three guards, because none sees everything. A thread counts its own seconds since the event loop was last alive; it sees a loop that waits
for something outside Python. It needs Python's lock itself, so it cannot see C code that holds that lock forever (a regular expression, a
parser). For this the kernel counts processor time, and ends the process by SIGPROF unless the event loop puts the clocks back: that of each of
Python's threads, of which one that runs uses a second in a second, on any number of cores; and that of the whole process, for a thread that is
younger than the last sign of life, or a system without clocks for threads. None counts while the process is stopped (SIGSTOP, a frozen
container), so a host that resumes after a pause keeps running.
"""

import asyncio
import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
from ctypes import byref, c_int, c_long, c_void_p

BEAT = 1.0  # seconds between two signs of life
PATIENCE = 60.0  # seconds without one


class Watchdog:
    """Ends this process when `beat` does not run for PATIENCE, or when it has not ended in the time that `end_within` gives.

    `n_threads` is how many threads llama.cpp computes with besides Python's.
    """

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads
        self._clocks = _ThreadClocks()
        self._silent = 0.0
        self._left: float | None = None

    def start(self) -> None:
        """Begin to watch."""
        with contextlib.suppress(AttributeError, ValueError, OSError):  # where the system has no such signal
            faulthandler.register(signal.SIGPROF, chain=True)  # writes where it was, then the signal ends us
        self._wind()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    async def beat(self) -> None:
        """Signal that the event loop is alive."""
        while True:
            self._silent = 0.0
            self._wind()
            await asyncio.sleep(BEAT)

    def end_within(self, seconds: float) -> None:
        """End the process in that time at the latest."""
        if self._left is None:
            self._left = seconds

    def _wind(self) -> None:
        self._clocks.wind(PATIENCE)
        with contextlib.suppress(
            AttributeError, OSError
        ):  # not before PATIENCE, however many threads compute
            signal.setitimer(signal.ITIMER_PROF, PATIENCE * (1 + self._n_threads))

    def _watch(self) -> None:
        while True:
            time.sleep(BEAT)
            self._silent += BEAT
            if self._left is not None:
                self._left -= BEAT
            if self._silent > PATIENCE or (self._left is not None and self._left <= 0):
                sys.stderr.write(
                    f"the model process exits: its event loop was blocked for {self._silent:.0f} s"
                    f"{' during shutdown' if self._left is not None else ''}\n"
                )
                faulthandler.dump_traceback(all_threads=True)
                sys.stderr.flush()
                os._exit(1)


class _Event(ctypes.Structure):
    """Linux's struct sigevent, of 64 bytes."""

    _fields_ = (("value", c_void_p), ("signo", c_int), ("notify", c_int), ("rest", ctypes.c_char * 48))


class _ThreadClocks:
    """A timer for each of Python's threads, on the processor time that it uses; Linux's timer_create, nothing elsewhere."""

    def __init__(self) -> None:
        self._timers: dict[threading.Thread, c_void_p] = {}
        self._libc = None
        if sys.platform == "linux" and ctypes.sizeof(c_void_p) == 8:
            for name in (None, "librt.so.1"):  # glibc before 2.34 has them apart
                with contextlib.suppress(OSError, AttributeError):
                    found = ctypes.CDLL(name)
                    _ = found.timer_create, found.timer_settime, found.timer_delete
                    self._libc = found
                    break

    def wind(self, seconds: float) -> None:
        """Let each thread that runs now use so many seconds from now on before SIGPROF comes."""
        if self._libc is None:
            return
        running = set(threading.enumerate())
        for thread in self._timers.keys() - running:
            self._libc.timer_delete(self._timers.pop(thread))
        whole = int(seconds)
        value = (c_long * 4)(0, 0, whole, int((seconds - whole) * 1e9))  # struct itimerspec: no interval
        for thread in running:
            if thread not in self._timers and (timer := self._timer(thread)):
                self._timers[thread] = timer
            if thread in self._timers:
                self._libc.timer_settime(self._timers[thread], 0, value, None)

    def _timer(self, thread: threading.Thread) -> c_void_p | None:
        assert self._libc is not None
        if thread.native_id is None:
            return None
        clock = c_int(
            (~thread.native_id << 3) | 6
        )  # CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED of posix-timers.h
        timer = c_void_p()
        event = _Event(None, signal.SIGPROF, 0)  # SIGEV_SIGNAL
        return None if self._libc.timer_create(clock, byref(event), byref(timer)) else timer


__all__ = ["PATIENCE", "Watchdog"]
