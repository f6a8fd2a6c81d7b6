"""No host stays for ever: what ends a process whose event loop does not run any more, or that does not end when it should.

Two guards, because neither sees everything. A thread counts its own seconds since the event loop was last alive; it sees a loop that waits
for something outside Python. It needs Python's lock itself, so it cannot see C code that holds that lock for ever (a regular expression, a
parser): for this the kernel counts the processor time of the process and ends it by SIGPROF, unless the event loop puts the clock back.
Neither counts while the process is stopped (SIGSTOP), so a host that goes on after a pause goes on.
"""

import asyncio
import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time

BEAT = 1.0  # seconds between two signs of life
PATIENCE = 60.0  # seconds without one
PER_THREAD = 10.0  # seconds of processor time that each of llama.cpp's threads may use besides, between two signs of life


class Watchdog:
    """Ends this process when `beat` does not run for PATIENCE, or when it has not ended in the time that `end_within` gives."""

    def __init__(self, n_threads: int) -> None:
        self._processor_time = PATIENCE + PER_THREAD * n_threads
        self._silent = 0.0
        self._left: float | None = None

    def start(self) -> None:
        """Begin to watch."""
        with contextlib.suppress(AttributeError, ValueError, OSError):  # where the system has no such signal
            faulthandler.register(signal.SIGPROF, chain=True)  # writes where it was, then the signal ends us
        self._wind()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    async def beat(self) -> None:
        """Be the sign of life of the event loop."""
        while True:
            self._silent = 0.0
            self._wind()
            await asyncio.sleep(BEAT)

    def end_within(self, seconds: float) -> None:
        """End the process in that time at the latest."""
        if self._left is None:
            self._left = seconds

    def _wind(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            signal.setitimer(signal.ITIMER_PROF, self._processor_time)

    def _watch(self) -> None:
        while True:
            time.sleep(BEAT)
            self._silent += BEAT
            if self._left is not None:
                self._left -= BEAT
            if self._silent > PATIENCE or (self._left is not None and self._left <= 0):
                sys.stderr.write(
                    f"the model process ends itself: its event loop was silent for {self._silent:.0f} s"
                    f"{' and it was told to stop' if self._left is not None else ''}\n"
                )
                faulthandler.dump_traceback(all_threads=True)
                sys.stderr.flush()
                os._exit(1)


__all__ = ["PATIENCE", "Watchdog"]
