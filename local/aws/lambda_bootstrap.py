"""Starts Lambda's runtime client for one function; runs in that function's process, with nothing but its own path.

The runtime client's parent is AWS's emulator, and a call that is under way does not end with it. So this process
asks the kernel to be killed with its parent, as all child processes of the local cloud do.
"""

import ctypes
import runpy
import signal

_PR_SET_PDEATHSIG = 1  # prctl(2)

ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)
