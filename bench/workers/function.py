"""Runs the handler of the built send_chat_push in this process, as Lambda's runtime client does, without its HTTP.

The protocol of standard input and output is that of bench/baselines/sequential.py. The handler gets the ids of the
messages as records of SQS. For an empty list it gets the event of the schedule.
"""

import json
import os
import sys
import time

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # The function's logs and metrics go to standard error.

import app  # noqa: E402

TIMEOUT_SECONDS = 20


class Context:
    """The part of Lambda's context that the function uses."""

    function_name = "SendChatPush"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:eu-central-1:123456789012:function:SendChatPush:live"
    aws_request_id = "8b1e6a4e-0000-4000-8000-000000000000"

    def __init__(self) -> None:
        self._ends_at = time.monotonic() + TIMEOUT_SECONDS

    def get_remaining_time_in_millis(self) -> int:
        return round((self._ends_at - time.monotonic()) * 1000)


for line in sys.stdin:
    messages = json.loads(line)
    sent = {"SentTimestamp": str(round(time.time() * 1000))}
    records = [{"messageId": message["id"], "body": message["id"], "attributes": sent} for message in messages]
    answer = app.lambda_handler({"Records": records} if records else {"sweep": True}, Context())
    if answer.get("batchItemFailures"):
        sys.exit(f"records came back: {answer}")
    print("done", file=answers, flush=True)
