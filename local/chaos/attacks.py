"""The attacks of a chaos run. Each marks what must not be stored or accepted."""

from uuid import uuid4

from local.chaos.attacker import Attack, Attacker
from local.chaos.older_database import insert_older_messages
from local.types import Json

HUGE = 1_200_000
DEVICES_AT_ONCE, DEVICES_ONE_BY_ONE = 200, 20
WEBHOOKS = 5

ODD_NAMES = ("\n\t", "\u00a0", "\u3164\u2800", "\u202egnp.", "x" * 2000, "' or 1=1 --", "{{name}} %s", "👩‍👩‍👧‍👦" * 40)
ODD_ATTACHMENTS: list[Json] = [
    *({}, {"type": None}, {"size": -1, "more": [[]]}, {"type": "image", "url": None}),
    {"type": "image", "url": "https://attacker.example/beacon.png"},
]
ODD_BODIES = (b"\xff\xfe", b"null", b'"', b"[" * 8000, b'{"device_id": ' * 500, b" " * 900_000, b"{}")
ODD_FIELDS: list[dict[str, Json]] = [
    *({"device_id": "\0"}, {"device_id": {"a": [{}]}}, {"platform": "\u202eios"}, {"push_provider": ["expo"]}),
    *({"push_token": "x" * 3000, "push_provider": "fcm"}, {"app_version": "\0"}, {"user_id": None}),
]
ODD_TOKENS = (b"\xff\xfe", b"e30.e30.e30", b"." * 2000)


async def flood_of_devices(attacker: Attacker) -> None:
    """Registers more devices than a user may have, with made-up tokens, and sends messages to them."""
    flood = _device(attacker, device_id=attacker.marker("a device of a flood"))
    await attacker.call_data_api("POST", "user_devices", [flood, *(_device(attacker) for _ in range(DEVICES_AT_ONCE))])
    for _ in range(DEVICES_ONE_BY_ONE):
        device = {f"p_{name}": value for name, value in _device(attacker).items() if name != "user_id"}
        await attacker.call_data_api("POST", "rpc/register_device", device)
    room = await attacker.accomplice.open_chat(attacker.person)
    for _ in range(3):
        await attacker.accomplice.send(room, "Hello")


async def odd_registrations(attacker: Attacker) -> None:
    """Sends odd registrations to the HTTP API, which validates them before the database does."""
    token, path = attacker.person.access_token.encode(), "/api/push/register"
    for body in ODD_BODIES:
        await attacker.call_http_api("POST", path, token, content=body)
    for odd in ODD_FIELDS:
        device_id = attacker.marker(f"a device with odd {', '.join(odd)}")
        device = _device(attacker, device_id=device_id) | odd
        if "user_id" not in odd:
            del device["user_id"]
        await attacker.call_http_api("POST", path, token, json=device)
    await attacker.call_http_api("DELETE", "/api/push/unregister", token, params={"device_id": "\0" + "x" * 3000})
    for odd_token in ODD_TOKENS:
        device = _device(attacker, device_id=attacker.marker("a device under an odd token"))
        del device["user_id"]
        await attacker.call_http_api("POST", path, odd_token, json=device)


def _device(attacker: Attacker, **fields: object) -> dict[str, object]:
    return {
        "user_id": str(attacker.person.id),
        "device_id": str(uuid4()),
        "platform": "ios",
        "push_token": f"ExponentPushToken[{uuid4()}]",
        **fields,
    }


async def theft_of_a_token(attacker: Attacker) -> None:
    """Registers the token of another user, in either spelling, in an insert that is ignored as a duplicate.

    The accomplice does so, because the attacker has used up the limit of registrations.
    """
    phone, thief = attacker.random.choice(attacker.victim().phones), attacker.accomplice
    token, own = phone.token, _device(attacker, user_id=str(thief.id))
    stolen = own | {"platform": phone.platform, "push_provider": phone.provider}
    await attacker.call_data_api("POST", "user_devices", own, by=thief)
    for spelling in (token, token.replace("Exponent", "Expo", 1)):
        await attacker.call_data_api(
            "POST",
            "user_devices?on_conflict=user_id,device_id",
            stolen | {"push_token": spelling},
            "return=minimal,resolution=ignore-duplicates",
            thief,
        )
    # The same token under another provider must be rejected.
    device_id = attacker.marker("a token under another provider")
    other_provider = "fcm" if phone.provider == "expo" else "expo"
    other = own | {"device_id": device_id, "push_token": token, "push_provider": other_provider}
    await attacker.call_data_api("POST", "user_devices", other, by=thief)


async def devices_of_others(attacker: Attacker) -> None:
    """Inserts, changes and deletes devices of another user."""
    victim = attacker.victim()
    device_id, token = attacker.marker("a device of another user"), attacker.marker("a token of another user")
    device = _device(attacker, user_id=str(victim.person.id), device_id=device_id)
    await attacker.call_data_api("POST", "user_devices", device)
    of_victim = f"user_devices?user_id=eq.{victim.person.id}"
    await attacker.call_data_api("PATCH", of_victim, {"is_active": False})
    await attacker.call_data_api("PATCH", of_victim, {"push_token": f"ExponentPushToken[{token}]"})
    await attacker.call_data_api("DELETE", of_victim)


async def huge_messages(attacker: Attacker) -> None:
    """Sends messages beyond each bound."""
    room = await attacker.person.open_chat(attacker.accomplice)
    for what, text, fields in (
        ("a text of 1.2 MB", "x" * HUGE, {}),
        ("attachments of 1.2 MB", "", {"attachments": [{"url": "x" * HUGE}]}),
        ("attachments that are no list", "", {"attachments": {"type": "image"}}),
        ("31 attachments", "", {"attachments": [{}] * 31}),
        ("an attachment that is no object", "", {"attachments": [{}, 7]}),
        ("an attachment of an unknown type", "", {"attachments": [{"type": 5}]}),
        ("an attachment with a script", "", {"attachments": [{"type": "image", "url": "javascript:alert(1)"}]}),
        ("a long client_msg_id", "", {"client_msg_id": "x" * 3000}),
    ):
        row = {"room_id": str(room), "sender_id": str(attacker.person.id), "message": attacker.marker(what) + text}
        await attacker.call_data_api("POST", "chat_messages", {**row, **fields})


async def huge_edits(attacker: Attacker) -> None:
    """Edits a small message beyond the bound."""
    message = await attacker.person.send(await attacker.person.open_chat(attacker.accomplice), "Hello")
    text = attacker.marker("an edit of 1.2 MB") + "x" * HUGE
    await attacker.call_data_api("PATCH", f"chat_messages?id=eq.{message}", {"message": text})


async def huge_names(attacker: Attacker) -> None:
    """Writes values beyond the bound into each field of the attacker's profile."""
    for field in ("display_name", "avatar_url", "locale"):
        name = attacker.marker(f"a {field} of 1.2 MB") + "x" * HUGE
        await attacker.call_data_api("PATCH", f"users?id=eq.{attacker.person.id}", {field: name})


async def odd_but_allowed_values(attacker: Attacker) -> None:
    """Sends a message with an odd but allowed name and attachments, to a user who never answered."""
    name = attacker.random.choice(ODD_NAMES)
    await attacker.call_data_api("PATCH", f"users?id=eq.{attacker.person.id}", {"display_name": name})
    room = await attacker.person.open_chat(attacker.victim().person)
    message = {"room_id": str(room), "sender_id": str(attacker.person.id)} | {
        "message": attacker.random.choice(["", "\u202e", "%s", "x" * 16_000]),
        "attachments": attacker.random.sample(ODD_ATTACHMENTS, 3),
    }
    await attacker.call_data_api("POST", "chat_messages", message)


async def conversations_with_all(attacker: Attacker) -> None:
    """Opens a conversation with every user, with forged columns."""
    for victim in attacker.traffic.actors:
        room = {"user1_id": str(attacker.person.id), "user2_id": str(victim.person.id)}
        forged = {"created_at": attacker.forged_time("the created_at of a conversation"), "unread_count_user2": 99}
        await attacker.call_data_api("POST", "chat_rooms", room | forged)


async def tables_and_columns_of_others(attacker: Attacker) -> None:
    """Writes rows and columns that belong to other users or to the server."""
    victim = attacker.victim()
    conversation = attacker.random.choice(victim.conversations)
    own = await attacker.person.open_chat(attacker.accomplice)
    mark = attacker.marker
    message = {"room_id": str(conversation), "sender_id": str(attacker.person.id)}
    stamped = {"room_id": str(own), "sender_id": str(attacker.person.id), "message": "Hello", "is_read": True}
    stamped |= {name: attacker.forged_time(f"the {name} of a message") for name in ("server_timestamp", "created_at")}
    seen = _device(attacker, last_seen_at=attacker.forged_time("the last_seen_at of a device"))
    user = {"user_id": str(victim.person.id), "is_online": True}
    of_others = f"chat_messages?room_id=eq.{conversation}"
    for method, path, body in (
        ("POST", "chat_messages", message | {"message": mark("a message in a conversation of others")}),
        (
            "POST",
            "chat_messages",
            message | {"sender_id": user["user_id"], "message": mark("a message in another user's name")},
        ),
        ("POST", "chat_messages", stamped),
        ("POST", "user_devices", seen),
        ("PATCH", of_others, {"message": mark("an edit of a message of another user")}),
        ("PATCH", of_others, {"deleted_at": "now"}),
        ("PATCH", of_others, {"is_read": True}),
        ("DELETE", of_others, None),
        ("DELETE", f"chat_rooms?id=eq.{conversation}", None),
        ("PATCH", f"chat_rooms?id=eq.{own}", {"last_message": mark("a last_message")}),
        ("PATCH", f"users?id=eq.{victim.person.id}", {"display_name": mark("the name of another user")}),
        ("POST", "user_presence", user | {"current_conversation_id": str(conversation)}),
        ("PATCH", f"user_presence?user_id=eq.{victim.person.id}", {"current_conversation_id": str(conversation)}),
        ("POST", "chat_rooms", {"id": mark("a conversation of others"), **_two_others(attacker)}),
        ("POST", "rpc/mark_messages_read", {"p_user_id": user["user_id"], "p_conversation_id": str(conversation)}),
        ("POST", "rpc/claim_push_jobs", {"p_limit": 100}),
        ("POST", "rpc/record_push_results", {"p_lease_id": str(uuid4()), "p_results": []}),
        ("POST", "rpc/prune_push", {"p_limit": 1}),
    ):
        await attacker.call_data_api(method, path, body)


def _two_others(attacker: Attacker) -> dict[str, str]:
    one, other = attacker.random.sample(attacker.traffic.actors, 2)
    return {"user1_id": str(one.person.id), "user2_id": str(other.person.id)}


async def random_webhook_secrets(attacker: Attacker) -> None:
    """Calls the webhook with random secrets, one of them no UTF-8, and with ids of no message."""
    url = f"{attacker.cloud.api_url}/api/push/chat-message"
    for secret in (b"\xff\xfe", *(uuid4().hex.encode() for _ in range(WEBHOOKS))):
        marker = attacker.marker("a webhook with a random secret")
        answer = await attacker.request(
            "POST", url, json={"record": {"id": marker}}, headers=[(b"x-webhook-secret", secret)]
        )
        if answer.is_success:
            attacker.accepted.add(marker)


async def older_messages(attacker: Attacker) -> None:
    """Inserts messages of an older database into a conversation of two other users, always the same."""
    sender = attacker.traffic.actors[0]
    room = sender.conversations[0]
    [recipient] = [actor for actor in attacker.traffic.actors if room in actor.conversations and actor is not sender]
    await insert_older_messages(attacker.cloud, room, sender.person.id, recipient.person.id)


ATTACKS: dict[str, Attack] = {
    "attacks: device floods": flood_of_devices,
    "attacks: odd registrations": odd_registrations,
    "attacks: token thefts": theft_of_a_token,
    "attacks: devices of others": devices_of_others,
    "attacks: huge messages": huge_messages,
    "attacks: huge edits": huge_edits,
    "attacks: huge names": huge_names,
    "attacks: odd names and attachments": odd_but_allowed_values,
    "attacks: conversations with all users": conversations_with_all,
    "attacks: tables and columns of others": tables_and_columns_of_others,
    "attacks: random webhook secrets": random_webhook_secrets,
    "messages of an older database": older_messages,
}
