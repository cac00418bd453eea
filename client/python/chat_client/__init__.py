"""A chat client for Supabase and Chat Push: sends, syncs and shows messages, also without a network.

The reference for clients in other languages; for bots, load generators and terminals. README.md has an example.
"""

from chat_client.client import ChatClient
from chat_client.models import Attachment, Conversation, Entry, Message, Person
from chat_client.push import Tap, tap_of
from chat_client.settings import Settings, Timing

__all__ = [
    "Attachment",
    "ChatClient",
    "Conversation",
    "Entry",
    "Message",
    "Person",
    "Settings",
    "Tap",
    "Timing",
    "tap_of",
]
