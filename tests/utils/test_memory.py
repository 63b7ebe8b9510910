"""Memory that was freed stays with the process."""

import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
from resource import RUSAGE_SELF, getrusage

def faults():
    before = getrusage(RUSAGE_SELF).ru_minflt
    for _ in range(3):
        blocks = [b"x" * (24 * 2**20) for _ in range(4)]  # 24,576 pages of 4 KB
        del blocks
    return getrusage(RUSAGE_SELF).ru_minflt - before

faults()  # the first time has to ask the system
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about the C library of GNU")
def test_freed_memory_is_not_fetched_again_from_the_system():
    def faults(first: str) -> int:
        return int(subprocess.run([sys.executable, "-c", first + COUNT_FAULTS], check=True,
                                  capture_output=True, text=True).stdout)

    usual = faults("")
    kept = faults("from reidlib.utils.memory import keep_freed_memory; keep_freed_memory()")
    assert kept < usual / 10, (kept, usual)
