"""What is in a push: text, image, sound, badge, life and data. How a provider writes it is in its payload module."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from chat_push.models import Kind, Preview, Push, Target, Texts
from chat_push.texts import translated

MAX_LINE_CHARACTERS = 200
MAX_TITLE_CHARACTERS = 100
MAX_TITLE_GRAPHEMES = 40

# English; push.translations has them in other languages.
NEUTRAL_TITLE, NEUTRAL_TITLE_OF_SEVERAL = "New message", "{count} new messages"
REQUEST_TITLE = "New message request"
NAME_AND_COUNT = "{name} ({count})"
NEUTRAL_LINE = "Open the app to read it"  # in place of a text that the recipient does not want to be shown
SOUND_CHANNEL, QUIET_CHANNEL = "chat-messages", "chat-messages-quiet"
# An older dismissal or badge would only repeat what the app reads from the database when it is opened.
SILENT_TTL_SECONDS = 3600
# FCM refuses more: https://firebase.google.com/docs/cloud-messaging/customize-messages/setting-message-lifespan
MAX_TTL_SECONDS = 28 * 24 * 3600


@dataclass(frozen=True)
class Text:
    """An alert or update: a text that the system draws.

    room_id: the conversation, which has one notification: a second push with it replaces the first. ttl: in seconds.
    """

    kind: Kind
    platform: str
    room_id: str
    title: str = field(repr=False)
    lines: tuple[str, ...] = field(repr=False)  # the newest first
    image_url: str | None = field(repr=False)
    badge: int
    sound: bool
    sound_name: str | None  # of the app; None: the default sound
    ttl: int
    data: Mapping[str, Any]

    @property
    def body(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines)

    @property
    def channel(self) -> str:
        """The channel of Android."""
        if not self.sound:
            return QUIET_CHANNEL
        return f"{SOUND_CHANNEL}-{self.sound_name}" if self.sound_name else SOUND_CHANNEL

    @property
    def sound_file(self) -> str:
        """The sound of iOS, in the bundle of the app."""
        return f"{self.sound_name}.wav" if self.sound_name else "default"


@dataclass(frozen=True)
class Silent:
    """A dismissal or badge: the system draws nothing of it. A dismissal, and on Android a badge, wakes the app."""

    kind: Kind
    platform: str
    badge: int
    data: Mapping[str, Any]
    ttl: int = SILENT_TTL_SECONDS

    @property
    def wakes_app(self) -> bool:
        """Whether the app has to do what `data` says. iOS sets a badge by itself."""
        return self.kind == "dismiss" or self.platform != "ios"


type Content = Text | Silent


def text_of(push: Push, device: Target, now: datetime, texts: Texts) -> Text:
    """The content of an alert or update. `now`: by the clock of the database. `texts`: of the language of the device.

    Title and body are lines as private.one_line of the database returns them; they are only cut here.
    """
    is_full = device.preview == "full"
    # Without unread messages, the body is the fixed text in place of deleted ones.
    lines = [translated(texts, NEUTRAL_LINE)]
    if is_full or not push.unread:
        lines = [
            translated(texts, line) if number in push.fixed_lines else line
            for number, line in enumerate(push.body.split("\n"))
        ]
    return Text(
        kind=device.kind,
        platform=device.platform,
        room_id=str(push.room_id),
        title=_title(push, device.preview, texts),
        lines=tuple(truncate(line, MAX_LINE_CHARACTERS) for line in lines),
        image_url=push.image_url if is_full else None,
        badge=push.badge,
        sound=device.sound,
        sound_name=push.sound_name,
        ttl=min(max(1, int((push.expires_at - now).total_seconds())), MAX_TTL_SECONDS),
        data={
            "type": "chat_message",
            "kind": device.kind,
            "conversationId": str(push.room_id),
            "messageId": str(push.message_id) if push.message_id else None,
            "senderId": str(push.sender_id) if push.sender_id and device.preview in ("full", "name") else None,
            # The app hides the notification if another account has signed in on the device since.
            "recipientId": str(push.recipient_id),
            "unread": push.unread,
            "badge": push.badge,
        },
    )


def silent_of(kind: Kind, pushes: Sequence[Push], platform: str, now: datetime) -> Silent:
    """The content of a dismissal or badge of these conversations."""
    data: dict[str, Any] = {
        "type": "chat_message",
        "kind": kind,
        "recipientId": str(pushes[0].recipient_id),
        "badge": pushes[0].badge,
        # The system may hold it back. Then the app keeps the notification of a newer message.
        "sentAt": now.isoformat(),
    }
    if kind == "dismiss":
        data["conversationIds"] = [str(push.room_id) for push in pushes]
    return Silent(kind, platform, pushes[0].badge, data)


def fit(text: Text, write: Callable[[Text], dict[str, Any]], max_bytes: int) -> dict[str, Any]:
    """What `write` makes of the text, as JSON at most `max_bytes` long.

    If it does not fit, the image is left out, then the oldest lines. One line always fits.
    """
    written = write(text)
    while json_bytes(written) > max_bytes and (text.image_url or len(text.lines) > 1):
        text = replace(text, image_url=None) if text.image_url else replace(text, lines=text.lines[:-1])
        written = write(text)
    return written


def _title(push: Push, preview: Preview, texts: Texts) -> str:
    """The name of the sender, if it is shown, and how many messages are unread if there are several."""
    count = "99+" if push.unread > 99 else str(push.unread)
    name = push.title if preview in ("full", "name") else None
    if preview == "request":
        frame = translated(texts, REQUEST_TITLE)
    elif not name:
        several = push.unread > 1
        frame = translated(texts, NEUTRAL_TITLE_OF_SEVERAL if several else NEUTRAL_TITLE, push.unread)
        frame = frame.replace("{count}", count)
    else:
        frame = translated(texts, NAME_AND_COUNT).replace("{count}", count) if push.unread > 1 else "{name}"
    # The name may have braces, so it comes last; and it alone is cut.
    others = len(frame.replace("{name}", ""))
    room = max(1, MAX_TITLE_CHARACTERS - others), max(1, MAX_TITLE_GRAPHEMES - others)
    return frame.replace("{name}", truncate(name, *room)) if name else truncate(frame, MAX_TITLE_CHARACTERS)


def json_bytes(fields: Mapping[str, Any]) -> int:
    """Bytes of the fields as JSON in UTF-8."""
    return len(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())


def truncate(text: str, characters: int, graphemes: int | None = None) -> str:
    """The text in at most that many characters and graphemes. A longer text is cut between graphemes and ends in "…".

    Only a first grapheme that is longer than `characters` is cut inside, such as a long sequence of joined emoji.
    """
    graphemes = graphemes or characters
    if len(text) <= min(characters, graphemes):
        return text
    import regex  # Here, because the import is slow and only long texts need it.

    found = list(regex.finditer(r"\X", text[: 2 * characters]))
    if len(text) <= characters and len(found) <= graphemes:
        return text
    # One character and one grapheme less, for the "…".
    fit = [each.end() for each in found[: graphemes - 1] if each.end() < characters and not each[0].isspace()]
    return text[: fit[-1] if fit else characters - 1] + "…"
