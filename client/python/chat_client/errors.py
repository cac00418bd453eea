"""The errors that the client raises. Each is named for what the caller can do about it."""

from datetime import datetime


class ChatError(Exception):
    """The base of all errors of this package."""


class ServerUnreachable(ChatError):
    """The server gave no answer, or could not handle the request now. The same request may succeed later."""


class ServerFailed(ServerUnreachable):
    """The server answered with an error of its own, such as a timeout. It may be the request that causes it."""


class RateLimited(ServerUnreachable):
    """Too many requests. `retry_after`: seconds to wait."""

    def __init__(self, retry_after: float, message: str = "too many requests") -> None:
        super().__init__(f"{message}, wait {retry_after:g} seconds")
        self.retry_after = retry_after


class TooManyContacts(RateLimited):
    """The person has begun to write to too many strangers. Other conversations go on."""


class Rejected(ChatError):
    """The server refuses this request, and would refuse it again.

    `code`: an SQLSTATE such as 22001, a code of PostgREST, or one of the HTTP API. The message names the wrong field.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


class Suspended(Rejected):
    """A moderator has stopped this person from writing. `until`: None if nobody knows."""

    def __init__(self, message: str, until: datetime | None) -> None:
        super().__init__("PT403", message)
        self.until = until


class SignInRejected(Rejected):
    """Supabase Auth does not accept the e-mail address and the password."""


class NotSignedIn(ChatError):
    """Nobody is signed in: call sign_in."""


class SessionExpired(NotSignedIn):
    """The session has ended and could not be renewed: call sign_in. The outbox is kept until then."""


class OtherAccount(ChatError):
    """The local database belongs to another account. Call sign_out to remove its data, or use another file."""


class UnknownMessage(ChatError, LookupError):
    """No message with this id is in the local database."""


class DatabaseError(ChatError):
    """The base of all errors of the local database."""


class DatabaseInUse(DatabaseError):
    """Another client, perhaps of another process, has opened the local database: use another file, or close it."""


class DatabaseFull(DatabaseError):
    """The local database could not be written: the disk is full. What was stored before is kept."""


class DatabaseCorrupt(DatabaseError):
    """The local database was damaged while it was open. Open the client again: it saves the outbox and starts anew."""
