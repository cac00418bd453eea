"""The floor: the requests of send_chat_push with httpx alone, without checks and logs.

Two requests come before Expo's answer: the claim and the send. The record comes after it.
The protocol of standard input and output is that of bench/baselines/sequential.py.
"""

import json
import os
import sys

import httpx

database = httpx.Client(
    base_url=f"{os.environ['SUPABASE_URL']}/rest/v1/rpc/", headers={"apikey": os.environ["SUPABASE_SECRET_KEY"]}
)
expo = httpx.Client(base_url=os.environ["EXPO_URL"])

for line in sys.stdin:
    ids = [message["id"] for message in json.loads(line)]
    claim = database.post("claim_push_jobs", json={"p_message_ids": ids, "p_limit": len(ids)}).json()
    sends = [(job, device) for job in claim["jobs"] for device in job["devices"]]
    notifications = [
        {"to": device["push_token"], "body": job["body"], "data": {"messageId": job["message_id"]}}
        for job, device in sends
    ]
    tickets = expo.post("/--/api/v2/push/send", json=notifications).json()["data"]
    results = [
        {
            "job_id": job["job_id"],
            "deliveries": [{"delivery_id": device["delivery_id"], "status": "accepted", "ticket_id": ticket["id"]}],
        }
        for (job, device), ticket in zip(sends, tickets, strict=True)
    ]
    record = {"p_lease_id": claim["lease_id"], "p_claimed_at": claim["claimed_at"], "p_results": results}
    database.post("record_push_results", json=record).raise_for_status()
    print("done", flush=True)
