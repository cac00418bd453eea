"""The faults that a script can inject into APNs: what the sender sees, and when a fault strikes.

`accepted` says whether the phone received the notification. A sender cannot see this: after a reset or a GOAWAY, the
notification may have been delivered.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from local.providers import scripts
from local.providers.apns.protocol import STATUSES


def _status_of_reason(fields: dict[str, Any]) -> int:
    return STATUSES.get(fields.get("reason", ""), 0)  # 0 is no valid status


class _Fault(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    accepted: bool = False


class Rejection(_Fault):
    """An error answer. Its status follows from the reason; a reason that Apple does not document needs a status.

    With `stream_limit`, APNs also lowers the number of streams of the connection until it accepts a request again, as
    it has done after rejections: https://github.com/lionheart/openradar-mirror/issues/15649
    """

    kind: Literal["rejection"] = "rejection"
    accepted: Literal[False] = False
    reason: str
    status: Annotated[int, Field(ge=400, le=599)] = Field(default_factory=_status_of_reason, validate_default=True)
    timestamp: AwareDatetime | None = None  # with status 410; None: now
    retry_after: Annotated[int, Field(ge=0)] | None = None  # seconds
    stream_limit: Annotated[int, Field(ge=1)] | None = None


class GoAway(_Fault):
    """GOAWAY, with a reason in its debug data.

    `nothing_handled`: its last stream id is 0, and no stream is answered any more. Nothing of what was not answered yet
    is delivered.
    `mid_flight`: its last stream id is the one of the request; this stream and older ones are answered,
    newer ones are not, and then the connection closes. `followed_by_close`: the same last stream id, but the connection
    closes without an answer; only here, `accepted` is a choice.
    """

    kind: Literal["go_away"] = "go_away"
    variant: Literal["nothing_handled", "mid_flight", "followed_by_close"]
    reason: str | None = "Shutdown"

    @model_validator(mode="after")
    def _only_a_lost_answer_leaves_a_choice(self) -> Self:
        if self.accepted and self.variant != "followed_by_close":
            raise ValueError(f"accepted: the variant {self.variant} decides it")
        return self


class DeadSocket(_Fault):
    """The connection stays open, but APNs reads and answers nothing any more, as after a lost network.

    On `connect`, APNs answers nothing after the TLS handshake.
    """

    kind: Literal["dead_socket"] = "dead_socket"


class Reset(_Fault):
    """Resets the TCP connection after the request was read. On `connect`, after the TLS handshake."""

    kind: Literal["reset"] = "reset"


class StreamReset(_Fault):
    """RST_STREAM for the request; the connection stays usable."""

    kind: Literal["stream_reset"] = "stream_reset"
    code: Literal["REFUSED_STREAM", "INTERNAL_ERROR", "CANCEL"] = "REFUSED_STREAM"


class Slow(_Fault):
    """An answer after some seconds: 200 if the phone received the notification, 500 InternalServerError if not."""

    kind: Literal["slow"] = "slow"
    accepted: bool = True
    seconds: Annotated[float, Field(ge=0)]


type Fault = Rejection | GoAway | DeadSocket | Reset | StreamReset | Slow


type Endpoint = Literal["connect", "send"]


class Script(scripts.Script[Annotated[Fault, Field(discriminator="kind")], Endpoint]):
    """A fault for the next `times` valid requests, for the next that concern `token`, or for the next connections."""

    on: Endpoint = "send"

    @model_validator(mode="after")
    def _a_connection_has_no_request(self) -> Self:
        if self.on == "connect" and (
            not isinstance(self.fault, DeadSocket | Reset) or self.fault.accepted or self.token is not None
        ):
            raise ValueError("on connect, only dead_socket and reset can strike, without `accepted` and `token`")
        return self
