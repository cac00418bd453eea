"""What the person chooses: mute, sound, block, report, requests, snooze, quiet hours, previews.

All of it is on the server, so each call needs it. It raises Rejected, which names the wrong value, RateLimited,
ServerUnreachable and NotSignedIn.
"""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from chat_client.models import (
    BlockedPerson,
    NotificationPreferences,
    PreferenceChanges,
    Preview,
    blocked_person_of,
    preferences_of,
)
from chat_client.server import Server, iso
from chat_client.store import Store


class Choices:
    """`sync`: asks for a sync. `leave`: ends what is live of a conversation."""

    def __init__(self, store: Store, server: Server, sync: Callable[[], None], leave: Callable[[UUID], None]) -> None:
        self._store = store
        self._server = server
        self._sync = sync
        self._leave = leave

    # Conversations ------------------------------------------------------------------------------

    async def mute_conversation(self, conversation_id: UUID, until: datetime | None = None) -> None:
        """No notification and no badge of it until a time with a zone; None: until `unmute_conversation`."""
        await self._server.rpc(
            "mute_conversation", p_room_id=str(conversation_id), p_until=None if until is None else iso(until)
        )

    async def unmute_conversation(self, conversation_id: UUID) -> None:
        """Later messages make a notification again."""
        await self._server.rpc("unmute_conversation", p_room_id=str(conversation_id))

    async def set_conversation_sound(self, conversation_id: UUID, sound: str | None) -> None:
        """The name of a sound of the app, or none; None: the default."""
        await self._server.rpc("set_conversation_sound", p_room_id=str(conversation_id), p_sound=sound)

    async def accept_conversation(self, conversation_id: UUID) -> None:
        """It is no message request any more. An answer accepts it, too."""
        await self._server.rpc("accept_conversation", p_room_id=str(conversation_id))
        row = await self._server.conversation(conversation_id)
        if row is not None:
            self._store.apply_conversations([row])

    # People -------------------------------------------------------------------------------------

    async def block_user(self, user_id: UUID) -> None:
        """Nothing more of this person, who does not notice. Their conversation is removed from the local database."""
        await self._server.rpc("block_user", p_user_id=str(user_id))
        for conversation in self._store.conversations():
            if conversation.partner.id == user_id:
                self._leave(conversation.id)
                self._store.remove_conversation(conversation.id)
        # One that began before the block may have stored the conversation again.
        self._sync()

    async def unblock_user(self, user_id: UUID) -> None:
        """Ends the block. What was sent or edited meanwhile stays hidden. A sync brings the conversation back."""
        await self._server.rpc("unblock_user", p_user_id=str(user_id))
        self._sync()

    async def blocked_users(self) -> list[BlockedPerson]:
        """Whom the person blocks, the newest first."""
        return [blocked_person_of(row) for row in await self._server.rpc("my_blocked_users")]

    async def report_message(self, message_id: UUID, reason: str, details: str | None = None) -> UUID:
        """Tells the moderators of a message of somebody else, for one of the app's reasons. Returns the report's id."""
        return UUID(
            await self._server.rpc("report_message", p_message_id=str(message_id), p_reason=reason, p_details=details)
        )

    async def report_user(self, user_id: UUID, reason: str, details: str | None = None) -> UUID:
        """Tells the moderators of a person. Returns the id of the report."""
        return UUID(await self._server.rpc("report_user", p_user_id=str(user_id), p_reason=reason, p_details=details))

    # Notifications ------------------------------------------------------------------------------

    async def set_notification_preferences(self, changes: PreferenceChanges) -> None:
        """Changes what holds for all conversations. What is left out stays."""
        sent = dict(changes)
        if isinstance(until := sent.get("snoozed_until"), datetime):
            sent["snoozed_until"] = iso(until)
        await self._server.rpc("set_notification_preferences", p_preferences=sent)

    async def set_device_preview(self, preview: Preview | None) -> None:
        """What notifications show on this registered device; None: what set_notification_preferences says."""
        await self._server.rpc("set_device_preview", p_device_id=self._store.device_id(), p_preview=preview)

    async def my_notification_preferences(self) -> NotificationPreferences:
        """All that a settings screen shows."""
        return preferences_of(await self._server.rpc("my_notification_preferences"))
