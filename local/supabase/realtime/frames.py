"""Frames on the socket in both serializers. Described in https://supabase.com/docs/guides/realtime/protocol."""

import json
from dataclasses import dataclass, field
from typing import Literal

from local.types import Json

type Version = Literal["1.0.0", "2.0.0"]

_PUSH, _BROADCAST = 3, 4  # kinds of binary frames: from a client, to a client
_LONGEST = 255  # bytes of each string of a binary frame


class MalformedFrame(Exception):
    """A frame that no client of Realtime sends."""


@dataclass(frozen=True)
class Broadcast:
    """An event of a broadcast. `content` is JSON or binary."""

    event: str
    content: Json | bytes
    meta: Json = None
    persist: Json = None  # the option of its sender, which its receivers do not see

    @property
    def size(self) -> int:
        """Bytes of the content on the wire."""
        return len(self.encoded)

    @property
    def encoded(self) -> bytes:
        """The content on the wire."""
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()


@dataclass(frozen=True)
class Frame:
    """A message of the Phoenix protocol. The payload is JSON, or a Broadcast."""

    topic: str
    event: str
    payload: Json | Broadcast = field(default_factory=dict)
    ref: str | None = None
    join_ref: str | None = None


def decode(data: str | bytes, version: Version) -> Frame:
    """Reads a frame of a client. Raises MalformedFrame."""
    try:
        if isinstance(data, bytes):
            return _decode_push(data)
        message = json.loads(data)
        if version == "2.0.0":
            join_ref, ref, topic, event, payload = message
        else:
            topic, event, payload = message["topic"], message["event"], message["payload"]
            ref, join_ref = message.get("ref"), message.get("join_ref")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise MalformedFrame(f"no frame of serializer {version}: {error!r}") from error
    if event == "broadcast" and isinstance(payload, dict):
        payload = Broadcast(str(payload.get("event", "")), payload.get("payload"))
    return Frame(topic, event, payload, ref, join_ref)


def encode(frame: Frame, version: Version) -> str | bytes | None:
    """A frame for a client; None if its serializer has no form for it: 1.0.0 has none for binary content."""
    payload = frame.payload
    if isinstance(payload, Broadcast):
        if version == "2.0.0":
            return _encode_broadcast(frame.topic, payload)
        if isinstance(payload.content, bytes):
            return None
        meta = {"meta": payload.meta} if payload.meta else {}
        payload = {"type": "broadcast", "event": payload.event, "payload": payload.content, **meta}
    if version == "2.0.0":
        return json.dumps([frame.join_ref, frame.ref, frame.topic, frame.event, payload])
    message = {"topic": frame.topic, "event": frame.event, "payload": payload, "ref": frame.ref}
    return json.dumps(message | ({"join_ref": frame.join_ref} if frame.join_ref else {}))


def _decode_push(data: bytes) -> Frame:
    kind, *lengths, encoding = data[:7]
    if kind != _PUSH:
        raise ValueError(f"kind {kind} of a binary frame")
    strings, offset = [], 7
    for length in lengths:
        strings.append(data[offset : offset + length].decode())
        offset += length
    join_ref, ref, topic, event, metadata = strings
    content = json.loads(data[offset:]) if encoding else data[offset:]
    persist = json.loads(metadata or "{}").get("persist")
    return Frame(topic, "broadcast", Broadcast(event, content, persist=persist), ref or None, join_ref or None)


def _encode_broadcast(topic: str, payload: Broadcast) -> bytes:
    meta = json.dumps(payload.meta).encode() if payload.meta else b""
    strings = (topic.encode(), payload.event.encode(), meta)
    if any(len(string) > _LONGEST for string in strings):
        raise ValueError(f"topic, event or metadata of a broadcast is longer than {_LONGEST} bytes: {topic}")
    is_json = not isinstance(payload.content, bytes)
    return bytes([_BROADCAST, *map(len, strings), is_json]) + b"".join(strings) + payload.encoded
