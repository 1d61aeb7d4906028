"""Peak memory of a child process, as source text that the child runs."""

from __future__ import annotations

from typing import Final

#: Defines ``peak_mb()``: the process's own peak resident memory in MB (VmHWM of /proc/self/status).
#: Not ``ru_maxrss``: Linux carries that over ``exec`` from the process that forked, so that the child of a test run
#: which has torch loaded starts at a gigabyte.
PEAK_MB: Final = """
def peak_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
"""
