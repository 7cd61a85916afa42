"""Workers end with the process that started them."""

import os
import select
import signal
import subprocess
import sys

PROGRAM = """
import os, subprocess, sys, time
worker = "import sys, time; from codec.io.workers import die_with_parent; die_with_parent(int(sys.argv[1]))"
worker += "; print(1, flush=True); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", worker, str(os.getpid())])
time.sleep(60)
"""


def test_a_worker_of_a_killed_process_ends():
    read, write = os.pipe()
    parent = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=write)
    os.close(write)
    try:
        assert os.read(read, 1) == b"1"  # the worker has begun
        os.read(read, 1)
        assert not select.select([read], [], [], 0.6)[0]  # and goes on while its parent does
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert select.select([read], [], [], 5)[0] and os.read(read, 1) == b""  # nobody holds the pipe any longer
    finally:
        parent.kill()
        os.close(read)
