"""Where the server is, and how often the client does what."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Times in seconds. Tests shorten them."""

    request_timeout: float = 15
    retry_base: float = 1  # the wait after the first failed attempt; it doubles with each
    retry_cap: float = 60
    sync_interval: float = 60  # in the foreground: what a lost event did not say arrives by then
    marks_delay: float = 0.3  # marks of this time are sent together
    heartbeat: float = 20  # presence of this device
    typing_interval: float = 3  # at most one typing event in this time is sent
    typing_timeout: float = 7  # a partner who sends no typing event for this time has stopped
    stable_connection: float = 10  # a connection that breaks sooner counts as a failed attempt


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`database`: the file for the local data of one account. `api_url`: the output ApiUrl of the stack, for devices.

    `attempts`: how often an entry of the outbox is tried that the server answers with an error of its own. A server
    that cannot be reached does not count.
    """

    supabase_url: str
    publishable_key: str = field(repr=False)
    database: Path
    api_url: str | None = None
    attempts: int = 8
    timing: Timing = Timing()

    def __post_init__(self) -> None:
        for name in ("supabase_url", "api_url"):
            value = getattr(self, name)
            if value is not None and not value.startswith(("https://", "http://")):
                raise ValueError(f"{name} must be a URL such as https://example.com, not {value!r}")
        if self.publishable_key.startswith("sb_secret_"):
            raise ValueError("publishable_key is a secret key. Use the key that starts with sb_publishable_")
