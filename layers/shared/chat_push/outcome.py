"""What became of a notification: the words in which all providers report to the database."""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

MAX_RETRY_AFTER_SECONDS = 3600.0


@dataclass(frozen=True)
class Outcome:
    """What is known of one notification.

    After sending it:
    - accepted: Expo answered 200 without an error for it. Without ticket_id, Expo's tickets could not be read.
    - handed_over: APNs or FCM took it. Of Expo, this is known by the receipt.
      ticket_id is the name of FCM's message, or the apns-id.
    - maybe_sent: the response does not say whether the provider sent it.
    - retry: the provider did not take it now.
    - failed: the provider rejected it for good.
    - configuration_fault: the provider rejects it until an operator fixes the configuration.

    By its receipt also:
    - receipt_lost: Expo refuses the id of its ticket.
    """

    status: Literal["accepted", "maybe_sent", "retry", "failed", "configuration_fault", "handed_over", "receipt_lost"]
    error: str | None = None
    ticket_id: str | None = None
    retry_after_seconds: float | None = None
    whole_request: bool = False  # The error is of the request, not of this recipient.
    attempted: bool = True  # False: no request with it was made, for lack of time or after should_stop_sending.

    @property
    def should_stop_sending(self) -> bool:
        """Whether the provider would reject further requests, too, at the moment."""
        return self.whole_request and self.status in ("retry", "configuration_fault")


def request_outcome(
    status: Literal["maybe_sent", "retry", "failed", "configuration_fault"],
    error: str,
    retry_after_seconds: float | None = None,
) -> Outcome:
    """The outcome of every recipient of a request that failed as a whole, or because of the provider's state."""
    return Outcome(status, error, retry_after_seconds=retry_after_seconds, whole_request=True)


@dataclass(frozen=True)
class Meaning:
    """What an error code of a provider means. of_provider: it concerns each notification, not this recipient alone.

    wait_seconds: how long to wait at least if the provider does not say it.
    """

    status: Literal["maybe_sent", "retry", "failed", "configuration_fault"]
    of_provider: bool = False
    wait_seconds: float | None = None

    def outcome(self, error: str, retry_after_seconds: float | None = None) -> Outcome:
        """The outcome of a notification that the provider answered with this error."""
        wait = self.wait_seconds if retry_after_seconds is None else retry_after_seconds
        return Outcome(self.status, error, retry_after_seconds=wait, whole_request=self.of_provider)


def not_attempted(outcome: Outcome) -> Outcome:
    """The outcome of a notification that was not sent because of the outcome of another one."""
    return replace(outcome, attempted=False)


def as_code(value: object) -> str | None:
    """The value if it looks like a code. Codes are logged, and any other text may quote a message or a token."""
    return value if isinstance(value, str) and re.fullmatch(r"\w{1,100}", value, re.ASCII) else None


def as_ticket_id(value: object) -> str | None:
    """The id if it looks like one. Postgres could not store any other, or Expo would refuse a whole receipt request."""
    return value if isinstance(value, str) and re.fullmatch(r"[ -~]{1,200}", value) else None


def parse_retry_after(value: str) -> float | None:
    """A Retry-After header in seconds, from 0 to MAX_RETRY_AFTER_SECONDS; None if absent or unreadable."""
    try:
        wait = float(value) if value.isdecimal() else (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(0.0, wait), MAX_RETRY_AFTER_SECONDS)
