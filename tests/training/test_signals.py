"""The first signal is a request, the second one is final."""

import subprocess
import sys

PROGRAM = """
import os, signal, sys
from nova.training.signals import StopRequest
with StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    print(stop.received.name, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here", flush=True)
"""


def test_the_second_signal_ends_the_process():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout == "SIGTERM\n"
    assert done.returncode == -15
