"""Runs Lambda's own Python client for one handler, with nothing on the path but what the function has.

    lambda_bootstrap.py HANDLER            under AWS's emulator: the client speaks the Runtime API
    lambda_bootstrap.py HANDLER SOCKET     under the local cloud: the client speaks lines through an inherited socket

Lines from the process: `next` asks for an invocation, `result JSON` and `error JSON` answer it, and `init-error JSON`
says that the handler could not be loaded. Line to the process: request id, deadline (Unix time in ms), ARN, event.
"""

import ctypes
import json
import runpy
import signal
import socket
import sys
from types import SimpleNamespace
from typing import Any

_PR_SET_PDEATHSIG = 1  # prctl(2)
_LONGEST_RESULT = 6_291_556  # bytes: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html


class SocketClient:
    """Takes the place of awslambdaric's client of the Runtime API, whose binary part exists for Linux only."""

    def __init__(self, supervisor: socket.socket) -> None:
        from awslambdaric.lambda_runtime_marshaller import LambdaMarshaller

        self.marshaller = LambdaMarshaller()
        self._lines = supervisor.makefile("rwb")

    def wait_next_invocation(self) -> SimpleNamespace:
        """The next invocation; ends the process if the supervisor has ended."""
        self._write("next", "")
        line = self._lines.readline()
        if not line:
            sys.exit(0)
        request_id, deadline, arn, event = line.split(b" ", 3)
        return SimpleNamespace(
            invoke_id=request_id.decode(),
            deadline_time_in_ms=int(deadline),
            invoked_function_arn=arn.decode(),
            event_body=event,
            content_type="application/json",
            client_context=None,
            cognito_identity=None,
            invocation_id=None,
            tenant_id=None,
            x_amzn_trace_id=None,
        )

    def post_invocation_result(self, request_id: str, result: str, content_type: str, invocation_id: None) -> None:
        """Answers the invocation."""
        if len(result.encode()) > _LONGEST_RESULT:
            message = f"Response payload size exceeded maximum allowed payload size ({_LONGEST_RESULT} bytes)."
            error = {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": message}
            self._write("error", json.dumps(error))
        else:
            self._write("result", result)

    def post_invocation_error(self, request_id: str, error: str, xray_fault: str, invocation_id: None) -> None:
        """Answers the invocation with an error."""
        self._write("error", error)

    def post_init_error(self, error: dict[str, Any]) -> None:
        """Says that there will be no answers."""
        self._write("init-error", json.dumps(error))

    def _write(self, kind: str, content: str) -> None:
        self._lines.write(f"{kind} {content}\n".encode())
        self._lines.flush()


def main(handler: str, descriptor: str | None = None) -> None:
    """Serves invocations until the process is killed."""
    if descriptor is None:
        # The emulator is the parent. A busy handler does not end with it, so the kernel kills this process.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)
    else:
        sys.modules["runtime_client"] = None  # type: ignore[assignment]  # the binary part: not imported on Linux either
        from awslambdaric import bootstrap

        bootstrap.run(handler, SocketClient(socket.socket(fileno=int(descriptor))))


main(*sys.argv[1:])
