"""The sender of FCM or APNs alone, without a database. The protocol is that of bench/baselines/firebase.py.

It sends a hundred notifications at a time: a claim of a sweep has no more jobs.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

from chat_push.apns import Apns
from chat_push.delivery import JOBS_PER_CLAIM, Sender
from chat_push.fcm import Fcm
from chat_push.notification import Notification

service = json.loads(sys.argv[1])
sender: Sender
if "service_account" in service:
    sender = Fcm(json.dumps(service["service_account"]), service["url"])
else:
    urls = {"production": service["url"], "sandbox": service["url"]}
    sender = Apns(service["key"], service["key_id"], service["team_id"], service["topic"], urls)  # type: ignore[arg-type]


def payload(text: str) -> Mapping[str, Any]:
    """The fields that the baselines send."""
    alert = {"title": "Tina", "body": text}
    if "service_account" in service:
        return {"notification": alert}
    return {"headers": {"apns-push-type": "alert"}, "ttl": 86_400, "body": {"aps": {"alert": alert}}}


for line in sys.stdin:
    batch = [Notification(each["token"], payload(each["message"])) for each in json.loads(line)]
    for first in range(0, len(batch), JOBS_PER_CLAIM):
        outcomes = sender.send(batch[first : first + JOBS_PER_CLAIM], lambda: 20.0)
        if failed := [outcome for outcome in outcomes if outcome.status != "handed_over"]:
            sys.exit(f"failed: {failed[:3]}")
    print("done", flush=True)
