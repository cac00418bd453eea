"""Baseline: a hand-written Python service that makes one query after the other, then one publish for each message.

It follows the documentation of supabase-py and exponent-server-sdk, and keeps its clients and connections. It reads
batches of messages from standard input, one JSON list a line, as from a caller that looked up the recipient:
[{"id", "room_id", "sender_id", "recipient_id", "message"}]. It prints a line when all pushes of a batch were sent.
"""

import argparse
import json
import sys
from typing import Any

import requests  # type: ignore[import-untyped]
from exponent_server_sdk import PushClient, PushMessage

from supabase import Client, create_client

type Row = dict[str, Any]


def handle(message: Row, supabase: Client, expo: PushClient) -> None:
    """Sends the push of a message, unless its recipient is viewing the conversation."""
    recipient, room = message["recipient_id"], message["room_id"]

    presence: Any = (
        supabase.table("user_presence")
        .select("is_online, current_conversation_id")
        .eq("user_id", recipient)
        .maybe_single()
        .execute()
    )
    if presence and presence.data["is_online"] and presence.data["current_conversation_id"] == room:
        return
    devices: Any = (
        supabase.table("user_devices").select("push_token").eq("user_id", recipient).eq("is_active", True).execute()
    )
    if not devices.data:
        return
    sender: Any = supabase.table("users").select("display_name").eq("id", message["sender_id"]).single().execute()
    rooms: Any = (
        supabase.table("chat_rooms")
        .select("user1_id, unread_count_user1, unread_count_user2")
        .or_(f"user1_id.eq.{recipient},user2_id.eq.{recipient}")
        .execute()
    )
    badge = sum(
        row["unread_count_user1"] if row["user1_id"] == recipient else row["unread_count_user2"] for row in rooms.data
    )
    tickets = expo.publish_multiple(
        [
            PushMessage(
                to=device["push_token"],
                title=sender.data["display_name"],
                body=message["message"],
                data={
                    "conversationId": room,
                    "messageId": message["id"],
                    "senderId": message["sender_id"],
                    "type": "chat_message",
                },
                sound="default",
                badge=badge,
                channel_id="chat-messages",
            )
            for device in devices.data
        ]
    )
    for ticket in tickets:
        ticket.validate_response()


def main() -> None:
    """Serves standard input until it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supabase-url", required=True)
    parser.add_argument("--secret-key", required=True)
    parser.add_argument("--expo-url", required=True)
    arguments = parser.parse_args()
    supabase = create_client(arguments.supabase_url, arguments.secret_key)
    session = requests.Session()  # as the SDK's documentation advises: keep-alive
    session.headers.update({"accept": "application/json", "content-type": "application/json"})
    expo = PushClient(host=arguments.expo_url, session=session)
    for line in sys.stdin:
        for message in json.loads(line):
            handle(message, supabase, expo)
        print("done", flush=True)


if __name__ == "__main__":
    main()
