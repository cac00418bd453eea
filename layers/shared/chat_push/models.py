"""What the workers and the database functions exchange, as JSON."""

from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

DeliveryStatus = Literal["accepted", "maybe_sent", "retry", "failed", "configuration_fault"]
ReceiptStatus = Literal["handed_over", "failed", "retry", "configuration_fault", "missing", "receipt_lost"]


class _Model(BaseModel):
    # No repr and no error message may contain a text or a push token.
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class TargetDevice(_Model):
    """A device that a push is sent to. device_id is the id of its row in user_devices."""

    device_id: UUID
    push_token: str = Field(repr=False)


class Push(_Model):
    """A message to send now, and everything that its notification contains."""

    message_id: UUID
    room_id: UUID
    sender_id: UUID
    recipient_id: UUID
    title: str | None = Field(repr=False)
    body: str = Field(repr=False)
    image_url: str | None = Field(repr=False)
    badge: int
    sent_at: AwareDatetime
    attempt: int
    devices: list[TargetDevice]


class FinishedJob(_Model):
    """A job that ended in this claim without being sent, and why."""

    message_id: UUID
    outcome: str
    reason: str


class SendSlot(_Model):
    """When the reserved notifications may be sent, and the time of this response, both by the clock of the database."""

    send_at: AwareDatetime
    answered_at: AwareDatetime


class Claim(_Model):
    """The result of claim_push_jobs: the jobs that are now leased to the caller, and the message ids of the others.

    left_due: still due, for lack of room in this claim or of a send slot, or because a device with an ended session is
    locked. expired_leases: those of all these jobs whose last worker never reported.
    """

    lease_id: UUID
    claimed_at: AwareDatetime
    jobs: list[Push]
    slot: SendSlot | None  # None: no slot begins within the time that the worker can wait.
    finished: list[FinishedJob]
    deferred: list[UUID]
    left_due: list[UUID]
    not_due: list[UUID]
    unknown: list[UUID]
    expired_leases: list[UUID]


class Delivery(_Model):
    """The outcome of one message for one device. The database decides by `error` whether it deactivates the device."""

    device_id: UUID
    push_token: str = Field(repr=False)
    status: DeliveryStatus
    error: str | None = None
    ticket_id: str | None = None
    retry_after_seconds: float | None = None


class PushResult(_Model):
    """The outcomes of one leased job."""

    message_id: UUID
    deliveries: list[Delivery]


class Recorded(_Model):
    """The result of record_push_results."""

    deactivated: int  # devices
    held: int  # devices with a dead token that the circuit breaker keeps active
    lost_leases: list[UUID]  # jobs whose lease had expired before
    unrecorded: list[UUID]  # jobs whose result could not be stored


class DueReceipt(_Model):
    """A delivery whose receipt is due."""

    message_id: UUID
    device_id: UUID
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
    jobs_deleted: int
    more: bool
