"""Events for each function, in the form in which AWS sends them."""

import time
from contextlib import AsyncExitStack
from typing import Any

from bench.fixtures import Fixtures, Message
from local.app import chat_app

type Event = dict[str, Any]


def push_queue_event(messages: list[Message]) -> Event:
    """A batch of records of the queue."""
    sent = {"SentTimestamp": str(round(time.time() * 1000))}
    bodies = [message["id"] for message in messages]
    return {"Records": [{"messageId": body, "body": body, "attributes": sent} for body in bodies]}


async def first_events(fixtures: Fixtures) -> dict[str, Event]:
    """For each function, the simplest event that makes it call every service it depends on."""
    secret = (await fixtures.aws.secret(fixtures.template.secrets["WebhookSecret"].name))["current"]
    async with AsyncExitStack() as stack:
        # The URL of the HTTP API is not used: only an account is needed.
        app = await stack.enter_async_context(chat_app(fixtures.supabase, "http://127.0.0.1"))
        person = await app.sign_up("Tina", "tourist")
    return {
        "SendChatPush": {"sweep": True},
        "CleanupReceipts": {},
        "RegisterDevice": _request("GET", "/api/push/devices", person.access_token),
        "AuthorizeWebhook": {"version": "2.0", "headers": {"x-webhook-secret": secret}},
    }


def _request(method: str, path: str, access_token: str) -> Event:
    """A request to the HTTP API, in payload format 2.0."""
    return {
        "version": "2.0",
        "routeKey": f"{method} {path}",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"authorization": f"Bearer {access_token}"},
        "requestContext": {
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"},
            "requestId": "bench",
            "stage": "$default",
        },
        "isBase64Encoded": False,
    }
