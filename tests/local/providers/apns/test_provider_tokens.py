"""Which provider tokens APNs accepts."""

from typing import Any

import jwt
import pytest

from local.providers.apns.faults import Rejection
from local.providers.apns.provider_tokens import new_id, new_key
from local.providers.apns.state import ApnsService
from tests.local.providers.apns.sending import DEBUG_IPHONE, IPHONE, Clock, Connection, connected, provider_token

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


async def test_a_request_without_a_provider_token_is_rejected(apns: ApnsService, connection: Connection) -> None:
    connection.provider_token = None
    answer = await connection.send()
    assert (answer.status, answer.reason) == (403, "MissingProviderToken")
    assert apns.phones[IPHONE].arrived == []


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "STRANGER00"},
        {"iss": None},
        {"kid": "STRANGER00"},
        {"iat": None},
        {"iat": "today"},
    ],
)
async def test_a_token_with_wrong_or_missing_fields_is_invalid(
    apns: ApnsService, connection: Connection, changes: dict[str, Any]
) -> None:
    connection.provider_token = provider_token(apns.key, apns.now(), **changes)
    answer = await connection.send()
    assert (answer.status, answer.reason) == (403, "InvalidProviderToken")


async def test_a_token_that_another_key_signed_is_invalid(apns: ApnsService, connection: Connection) -> None:
    stranger = new_key(apns.key.team_id, apns.key.environments, ())
    connection.provider_token = provider_token(stranger, apns.now(), kid=apns.key.id)
    assert (await connection.send()).reason == "InvalidProviderToken"


async def test_only_es256_is_accepted(apns: ApnsService, connection: Connection) -> None:
    claims = {"iss": apns.key.team_id, "iat": int(apns.now().timestamp())}
    connection.provider_token = jwt.encode(claims, "secret" * 6, "HS256", headers={"kid": apns.key.id})
    assert (await connection.send()).reason == "InvalidProviderToken"


@pytest.mark.parametrize("authorization", ["", "bearer", "bearer ", "bearer x.y.z", "Basic {}", "{}"])
async def test_a_malformed_authorization_is_invalid(
    apns: ApnsService, connection: Connection, authorization: str
) -> None:
    valid = provider_token(apns.key, apns.now())
    assert (await connection.send(authorization=authorization.format(valid))).reason == "InvalidProviderToken"


@pytest.mark.parametrize(
    ("age", "reason"), [(0, None), (3600, None), (3601, "ExpiredProviderToken"), (-301, "InvalidProviderToken")]
)
async def test_a_token_is_valid_for_an_hour(
    apns: ApnsService, connection: Connection, clock: Clock, age: int, reason: str | None
) -> None:
    """A clock that is five minutes fast is accepted."""
    issued_at = clock.now
    clock.advance(seconds=age)
    connection.provider_token = provider_token(apns.key, issued_at)
    assert (await connection.send()).reason == reason


async def test_a_token_that_was_accepted_expires_on_the_same_connection(connection: Connection, clock: Clock) -> None:
    assert (await connection.send()).status == 200
    clock.advance(seconds=3601)
    assert (await connection.send()).reason == "ExpiredProviderToken"


async def test_a_token_is_accepted_that_was_issued_20_minutes_after_the_last_one(
    connection: Connection, clock: Clock
) -> None:
    for _ in range(3):
        connection.renew_provider_token()
        assert (await connection.send()).status == 200
        clock.advance(minutes=20)


async def test_a_connection_may_begin_with_a_token_that_is_soon_renewed(connection: Connection, clock: Clock) -> None:
    """Several processes share a token, so a new connection may come just before the token is renewed."""
    clock.advance(minutes=50)
    assert (await connection.send()).status == 200
    clock.advance(minutes=5)
    connection.renew_provider_token()
    assert (await connection.send()).status == 200


async def test_a_new_token_within_20_minutes_makes_the_connection_unusable_for_the_rest_of_them(
    apns: ApnsService, connection: Connection, clock: Clock
) -> None:
    first = connection.provider_token
    assert (await connection.send()).status == 200
    clock.advance(minutes=19, seconds=59)
    for token in (provider_token(apns.key, apns.now()), first):
        connection.provider_token = token
        answer = await connection.send()
        assert (answer.status, answer.reason) == (429, "TooManyProviderTokenUpdates")
    clock.advance(seconds=1)
    assert (await connection.send()).status == 200


async def test_after_a_scripted_expiry_a_new_token_is_accepted_at_once(
    apns: ApnsService, connection: Connection
) -> None:
    assert (await connection.send()).status == 200
    apns.script(Rejection(reason="ExpiredProviderToken"))
    assert (await connection.send()).reason == "ExpiredProviderToken"
    connection.renew_provider_token()
    assert (await connection.send()).status == 200


async def test_another_connection_may_use_another_token(apns: ApnsService, connection: Connection) -> None:
    assert (await connection.send()).status == 200
    async with connected(apns) as other:
        assert (await other.send()).status == 200
    assert len({request.provider_token for request in apns.requests}) == 2


async def test_a_connection_keeps_to_one_key(apns: ApnsService, connection: Connection, clock: Clock) -> None:
    other = provider_token(apns.add_key(), apns.now())
    assert (await connection.send()).status == 200
    clock.advance(minutes=30)
    connection.provider_token = other
    answer = await connection.send()
    assert (answer.status, answer.reason) == (403, "UnrelatedKeyIdInToken")
    async with connected(apns) as new:
        new.provider_token = other
        assert (await new.send()).status == 200


async def test_a_key_of_one_environment_is_rejected_in_the_other(apns: ApnsService, connection: Connection) -> None:
    key = apns.add_key({"sandbox"})
    connection.provider_token = provider_token(key, apns.now())
    answer = await connection.send()
    assert (answer.status, answer.reason) == (403, "BadEnvironmentKeyInToken")
    async with connected(apns, sandbox=True) as sandbox:
        sandbox.provider_token = provider_token(key, apns.now())
        assert (await sandbox.send(DEBUG_IPHONE)).status == 200


async def test_a_key_of_some_topics_is_rejected_for_the_others(apns: ApnsService, connection: Connection) -> None:
    connection.provider_token = provider_token(apns.add_key(topics={"com.example.other"}), apns.now())
    answer = await connection.send()
    assert (answer.status, answer.reason) == (400, "TopicDisallowed")


async def test_the_tokens_of_a_revoked_key_are_invalid_also_on_an_open_connection(
    apns: ApnsService, connection: Connection
) -> None:
    assert (await connection.send()).status == 200
    del apns.keys[apns.key.id]
    assert (await connection.send()).reason == "InvalidProviderToken"


def test_the_representation_of_a_key_has_no_secret(clock: Clock) -> None:
    key = ApnsService(clock).key
    assert key.private_key.startswith("-----BEGIN PRIVATE KEY-----")
    assert "PRIVATE" not in repr(key)
    assert len(new_id()) == len(key.id) == len(key.team_id) == 10
