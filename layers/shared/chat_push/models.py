"""What the parts of Chat Push say to one another."""

from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

DeliveryStatus = Literal["accepted", "maybe_sent", "retry", "failed", "configuration_fault"]
ReceiptStatus = Literal["handed_over", "failed", "retry", "configuration_fault", "missing", "receipt_lost"]


class _Model(BaseModel):
    # Neither a repr nor an error message may show a text or a push token.
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class TargetDevice(_Model):
    """An installation that a push goes to; device_id is the id of its row in user_devices."""

    device_id: UUID
    push_token: str = Field(repr=False)


class Push(_Model):
    """A message that is to be pushed now, and everything that its notification says."""

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
    """A job that ended without being sent now."""

    message_id: UUID
    outcome: str
    reason: str


class SendSlot(_Model):
    """When Expo may be sent what was asked for, and the time of that answer, both by the database's clock."""

    send_at: AwareDatetime
    answered_at: AwareDatetime


class Claim(_Model):
    """What claim_push_jobs answers: the jobs that are now leased to the caller, and what became of the others.

    left_due: more than one claim takes, or no send slot in time. expired_leases: of all these, the jobs whose last
    worker never reported.
    """

    lease_id: UUID
    claimed_at: AwareDatetime
    jobs: list[Push]
    slot: SendSlot | None  # None: there is none within the time that the worker can wait.
    send_at: float = 0.0  # The same by time.monotonic(). Earlier, and all workers together would exceed Expo's limit.
    finished: list[FinishedJob]
    deferred: list[UUID]
    left_due: list[UUID]
    not_due: list[UUID]
    unknown: list[UUID]
    expired_leases: list[UUID]


class Delivery(_Model):
    """What Expo said of one message and one device."""

    device_id: UUID
    push_token: str = Field(repr=False)
    status: DeliveryStatus
    error: str | None = None
    ticket_id: str | None = None
    retry_after_seconds: float | None = None


class PushResult(_Model):
    """What became of one leased job."""

    message_id: UUID
    deliveries: list[Delivery]


class Recorded(_Model):
    """What record_push_results answers.

    Devices deactivated, dead ones that the circuit breaker held back, jobs whose lease had run out, and jobs whose
    result could not be stored.
    """

    deactivated: int
    held: int
    lost_leases: list[UUID]
    unrecorded: list[UUID]


class DueReceipt(_Model):
    """A delivery whose receipt is to be asked for."""

    message_id: UUID
    device_id: UUID
    ticket_id: str


class RecordedReceipt(DueReceipt):
    """What Expo said when it was asked; missing: nothing yet."""

    status: ReceiptStatus
    error: str | None = None


class FinishedRun(_Model):
    """How a run of receipts ended: devices switched off, and dead ones that the circuit breaker held back."""

    deactivated: int
    held: int


class Pruned(_Model):
    """Old rows that were ended; `more` of them wait."""

    presence_offline: int
    devices_deactivated: int
    devices_deleted: int
    jobs_deleted: int
    more: bool
