"""What the workers and the database functions exchange, as JSON."""

from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Provider = Literal["expo", "fcm", "apns"]
Environment = Literal["production", "sandbox"]
DeliveryStatus = Literal["accepted", "handed_over", "maybe_sent", "retry", "failed", "configuration_fault"]
Kind = Literal["alert", "update", "dismiss", "badge"]
Preview = Literal["full", "name", "none", "request"]
ReceiptStatus = Literal["handed_over", "failed", "retry", "configuration_fault", "missing", "receipt_lost"]


class _Model(BaseModel):
    # No repr and no error message may contain a text or a push token.
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class Target(_Model):
    """A device that a push is sent to. device_id is the id of its row in user_devices.

    environment: the servers of APNs that issued the token. registered_at: when the device registered it last.
    preview: what its notifications may show: all, no text and image, or also no name; request: only that a stranger has
    written. language: of Claim.languages; empty: English.
    """

    delivery_id: int
    device_id: UUID
    provider: Provider
    environment: Environment
    push_token: str = Field(repr=False)
    registered_at: AwareDatetime
    platform: str
    kind: Kind
    sound: bool
    preview: Preview
    language: str = ""


class Push(_Model):
    """A job to send now: what the devices of a recipient should show of a conversation.

    message_id: the newest message that is shown, or None if none is left. unread: how many messages it stands for.
    badge: the unread messages of all conversations. sound_name: a sound of the app; None: the default.
    sent_at: when the oldest message was inserted that no earlier push announced.
    fixed_lines: which lines of the body are no text of a person, from 0.
    """

    job_id: int
    message_id: UUID | None
    room_id: UUID
    sender_id: UUID | None  # None: the conversation was deleted
    recipient_id: UUID
    sound_name: str | None
    title: str | None = Field(repr=False)
    body: str = Field(repr=False)  # a line for each message, the newest first
    fixed_lines: list[int] = []
    image_url: str | None = Field(repr=False)
    unread: int
    badge: int
    expires_at: AwareDatetime
    sent_at: AwareDatetime | None
    attempt: int
    devices: list[Target]


class Translation(_Model):
    """A fixed text in another language. plurals: the numbers of each plural category, as [from, before]."""

    forms: dict[str, str]
    plurals: dict[str, list[tuple[int, int]]]


type Texts = dict[str, Translation]  # by the English text


class FinishedMessage(_Model):
    """A message that this claim decided about without sending it, and why."""

    message_id: UUID
    outcome: str
    reason: str | None


class SendSlot(_Model):
    """When the reserved notifications may be sent, and the time of this response, both by the clock of the database."""

    send_at: AwareDatetime
    answered_at: AwareDatetime


class Claim(_Model):
    """The result of claim_push_jobs: the jobs that are now leased to the caller, and the messages not sent now.

    left_due: still due, for lack of room in this claim or of a send slot, or because a device with an ended session is
    locked. expired_leases: the jobs whose last worker never reported. examined: how many jobs were due. more_due: some
    of them could be sent now. later: some become due within a minute.
    """

    lease_id: UUID
    claimed_at: AwareDatetime
    jobs: list[Push]
    languages: dict[str, Texts] = {}
    slot: SendSlot | None  # None: no slot begins within the time that the worker can wait.
    finished: list[FinishedMessage]
    deferred: list[UUID]
    left_due: list[UUID]
    not_due: list[UUID]
    unknown: list[UUID]
    expired_leases: list[int]
    examined: int
    more_due: bool
    later: bool


class Delivery(_Model):
    """The outcome of one push to one device. The database decides by `error` whether it deactivates the device."""

    delivery_id: int
    status: DeliveryStatus
    error: str | None = None
    ticket_id: str | None = None
    retry_after_seconds: float | None = None


class PushResult(_Model):
    """The outcomes of one leased job."""

    job_id: int
    deliveries: list[Delivery]


class ProviderReport(_Model):
    """What a worker knows of FCM or APNs as a whole. fault: why it would refuse each further notification now."""

    provider: Provider
    has_succeeded: bool
    fault: Literal["retry", "configuration_fault"] | None
    retry_after_seconds: float | None


class Recorded(_Model):
    """The result of record_push_results."""

    deactivated: int  # devices
    held: int  # devices with a dead token that the circuit breaker keeps active
    lost_leases: list[int]  # jobs whose lease had expired before
    unrecorded: list[int]  # jobs whose result could not be stored
    later: bool  # whether one of the jobs is due again within a minute


class DueReceipt(_Model):
    """A delivery whose receipt is due."""

    delivery_id: int
    message_id: UUID | None  # the newest message that it shows
    ticket_id: str


class RecordedReceipt(DueReceipt):
    """What the receipt says. missing: Expo has none for this ticket yet."""

    status: ReceiptStatus
    error: str | None = None


class FinishedRun(_Model):
    """The result of finish_receipt_run: devices deactivated, and devices that the circuit breaker keeps active."""

    deactivated: int
    held: int


class Pruned(_Model):
    """The result of prune_push: rows by what was done to them, and whether more are left."""

    presence_offline: int
    devices_deactivated: int
    devices_deleted: int
    decisions_deleted: int
    jobs_deleted: int
    more: bool
