"""Runs the handler of the built send_chat_push in this process, as Lambda's runtime client does, without its HTTP.

Reads and answers as bench/baselines/sequential.py does; of each message it gets the id alone, as a record of SQS.
An empty list is the schedule's event.
"""

import json
import os
import sys
import time

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # The function's own logs and metrics go where its errors go.

import app  # noqa: E402

TIMEOUT_SECONDS = 20


class Context:
    """What the function uses of Lambda's context."""

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
