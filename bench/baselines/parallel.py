"""Baseline: a hand-written Python service that makes the queries of a message in parallel, then its publish.

It uses supabase-py's asynchronous client. exponent-server-sdk has no such client, so it runs in a thread.
The protocol of standard input and output is that of sequential.py.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable
from typing import Any

import requests  # type: ignore[import-untyped]
from exponent_server_sdk import PushClient, PushMessage

from supabase import AsyncClient, acreate_client

type Row = dict[str, Any]


async def handle(message: Row, supabase: AsyncClient, expo: PushClient) -> None:
    """Sends the push of a message, unless its recipient is viewing the conversation."""
    recipient, room = message["recipient_id"], message["room_id"]
    queries: list[Awaitable[Any]] = [
        supabase.table("user_presence")
        .select("is_online, current_conversation_id")
        .eq("user_id", recipient)
        .maybe_single()
        .execute(),
        supabase.table("user_devices").select("push_token").eq("user_id", recipient).eq("is_active", True).execute(),
        supabase.table("users").select("display_name").eq("id", message["sender_id"]).single().execute(),
        supabase.table("chat_rooms")
        .select("user1_id, unread_count_user1, unread_count_user2")
        .or_(f"user1_id.eq.{recipient},user2_id.eq.{recipient}")
        .execute(),
    ]
    presence, devices, sender, rooms = await asyncio.gather(*queries)
    if presence and presence.data["is_online"] and presence.data["current_conversation_id"] == room:
        return
    if not devices.data:
        return
    badge = sum(
        row["unread_count_user1"] if row["user1_id"] == recipient else row["unread_count_user2"] for row in rooms.data
    )
    tickets = await asyncio.to_thread(
        expo.publish_multiple,
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
        ],
    )
    for ticket in tickets:
        ticket.validate_response()


async def serve(arguments: argparse.Namespace) -> None:
    """Serves standard input until it ends."""
    supabase = await acreate_client(arguments.supabase_url, arguments.secret_key)
    session = requests.Session()
    session.headers.update({"accept": "application/json", "content-type": "application/json"})
    expo = PushClient(host=arguments.expo_url, session=session)
    while line := await asyncio.to_thread(sys.stdin.readline):
        for message in json.loads(line):
            await handle(message, supabase, expo)
        print("done", flush=True)


def main() -> None:
    """Reads the arguments and serves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supabase-url", required=True)
    parser.add_argument("--secret-key", required=True)
    parser.add_argument("--expo-url", required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
