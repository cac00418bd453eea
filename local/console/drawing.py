"""How conversations, messages and notifications look."""

from datetime import datetime
from uuid import UUID

from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from chat_client import Conversation, Message
from local.providers.phones import Arrival


def replace(options: OptionList, new: list[Option], to_end: bool = False) -> None:
    """Replaces the options if they differ, and keeps the chosen one. `to_end`: scrolls to the end while none is."""
    if [(each.id, str(each.prompt)) for each in options.options] == [(each.id, str(each.prompt)) for each in new]:
        return
    chosen = options.highlighted_option.id if options.highlighted_option else None
    options.set_options(new)
    ids = [each.id for each in new]
    options.highlighted = ids.index(chosen) if chosen in ids and options.has_focus else None
    if to_end and options.highlighted is None:
        options.scroll_end(animate=False)


def name_of(conversation: Conversation) -> str:
    """The name of the partner."""
    return printable(conversation.partner.display_name or str(conversation.partner.id))


def row_of(conversation: Conversation) -> Content:
    """A conversation in the list: name, unread messages, preview."""
    unread = f" ({conversation.unread})" if conversation.unread else ""
    return Content.assemble(
        (name_of(conversation) + unread, "bold"), "\n", (printable(conversation.last_message or ""), "dim")
    )


def line_of(message: Message, me: UUID | None, partner: str) -> Content:
    """A message: time, sender, text, and whether it was edited; of an own one also its state."""
    own = message.sender_id == me
    at = message.server_timestamp.astimezone() if message.server_timestamp else datetime.now()
    text = "(deleted)" if message.deleted_at else message.text or "(attachment)"
    notes = [
        "edited" if message.edited_at and not message.deleted_at else None,
        message.status if own else None,
        message.error,
    ]
    return Content.assemble(
        (f"{at:%H:%M} ", "dim"),
        (f"{'I' if own else partner}: ", "bold"),
        printable(text),
        (f"  {' · '.join(filter(None, notes))}".rstrip(), "dim"),
    )


def title_and_body(arrival: Arrival) -> tuple[str, str]:
    """What a notification shows, as it was sent."""
    title, body = (printable(str(arrival.message.get(name) or "")) for name in ("title", "body"))
    return title, body


def card(arrival: Arrival) -> Content:
    """A notification on the lock screen."""
    title, body = title_and_body(arrival)
    return Content.assemble((f"💬 {title}", "bold"), "\n", body)


def printable(text: str) -> str:
    """The text without what a terminal would obey, such as escape sequences in a message."""
    return "".join(each if each.isprintable() or each in "\n\u200d" else "\ufffd" for each in text)
