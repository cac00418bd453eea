"""A signed-in client that knows ids of other people tries them everywhere: nothing leaks, and nothing changes."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from uuid import UUID

import httpx
import psycopg
import pytest

from local.app import App, Person, chat_app, new_phone
from local.cloud import LocalCloud
from local.packages import PROJECT
from local.supabase.postgres import SUPERUSER
from tests.local.supabase.realtime.clients import python_client
from tests.system.app_phones import app_phone, rpc
from tests.system.chat import execute
from tests.system.hostile import (
    OWN_TOKEN,
    OWN_WORDS,
    Catalog,
    Request,
    Victims,
    changed,
    function_requests,
    keys_of,
    learned,
    schema_requests,
    table_requests,
    victims_of,
)


@dataclass(frozen=True)
class Attack:
    """Eve, who has nothing to do with the victims, and what she attacks."""

    cloud: LocalCloud
    app: App
    catalog: Catalog
    victims: Victims
    eve: Person
    http: httpx.AsyncClient

    async def ask(self, request: Request, *, signed_in: bool = True) -> httpx.Response:
        """Asks the Data API with Eve's token or none, and checks that the answer tells nothing."""
        token = {"Authorization": f"Bearer {self.eve.access_token}"} if signed_in else {}
        headers = {"apikey": self.cloud.supabase.publishable_key, **token, **request.headers}
        answer = await self.http.request(request.method, request.path, json=request.body, headers=headers)
        secrets = self.victims.secrets | keys_of(self.cloud)
        assert not learned(secrets, f"{request} {self.eve.id}", answer), f"{request} was answered {answer.text}"
        return answer


def routes(cloud: LocalCloud) -> Iterator[tuple[str, str]]:
    """Returns each route of the template, with each path of the API where it leaves the path open."""
    paths = json.loads((PROJECT / "docs" / "openapi.json").read_text())["paths"]
    for route in cloud.template.routes:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE") if route.method == "ANY" else (route.method,):
            for path in paths if "{" in route.path else (route.path,):
                yield method, path


@pytest.fixture
async def attack(cloud: LocalCloud) -> AsyncIterator[Attack]:
    """Victims with a row in each table of the Data API, whose push is sent."""
    async with (
        chat_app(cloud.supabase, cloud.api_url) as app,
        # The owner of the database may not read all tables of Supabase.
        await psycopg.AsyncConnection.connect(cloud.postgres.dsn(role=SUPERUSER), autocommit=True) as connection,
        httpx.AsyncClient(base_url=f"{cloud.supabase.url}/rest/v1/", timeout=30) as http,
    ):
        vera, victor = await app.sign_up("VeraTheVictim", "tourist"), await app.sign_up("VictorTheVictim", "guide")
        eve = await app.sign_up("Eve", "tourist")
        for person in (vera, victor):
            await person.log_in_on(new_phone(cloud.expo, "ios"), device_id=f"phone of {person.name}")
        room = await vera.open_chat(victor)
        for sender, reader in ((vera, victor), (victor, vera)):
            message = await sender.send(room, f"{sender.name} says where they meet")
            await cloud.until_push(message)
            # Not read: no further push is due, and Eve can try to read it.
            await rpc(reader, "mark_messages_delivered", p_user_id=str(reader.id), p_message_ids=[str(message)])
        await vera.look_at(room)
        catalog = Catalog(connection)
        yield Attack(cloud, app, catalog, await victims_of(catalog, vera, victor), eve, http)


async def test_a_hostile_client_learns_and_changes_nothing_in_any_table_column_and_function(attack: Attack) -> None:
    catalog, victims, eve = attack.catalog, attack.victims, attack.eve.id
    before = await catalog.mentions(victims.ids)
    assert len(before) > 10
    requests = [
        *await table_requests(catalog, victims, eve),
        *await function_requests(catalog, victims, eve),
    ]
    # First the reads: whoever opens a conversation with a person whose id she knows may see the profile.
    for request in sorted(requests, key=lambda request: request.method not in ("GET", "HEAD")):
        answer = await attack.ask(request)
        if request.counts and answer.is_success:
            assert answer.headers["Content-Range"] == "*/0", request
    assert await changed(catalog, victims, before, eve) == []


async def test_the_attacks_find_a_policy_that_is_open_to_everybody(attack: Attack) -> None:
    catalog, victims, cloud = attack.catalog, attack.victims, attack.cloud
    before = await catalog.mentions(victims.ids)
    requests = [
        request
        for request in await table_requests(catalog, victims, attack.eve.id)
        if request.path.startswith("user_devices?") and request.method in ("GET", "PATCH")
    ]
    found = Counter[str]()
    await execute(cloud, "create policy open_to_all on public.user_devices to authenticated using (true)")
    try:
        for request in requests:
            try:
                await attack.ask(request)
            except AssertionError:
                found[request.method] += 1
    finally:
        await execute(cloud, "drop policy open_to_all on public.user_devices")
    assert found.keys() == {"GET", "PATCH"}
    assert await changed(catalog, victims, before, attack.eve.id) != []


async def test_a_client_that_is_not_signed_in_is_refused_everywhere(attack: Attack) -> None:
    catalog, victims = attack.catalog, attack.victims
    before = await catalog.mentions(victims.ids)
    asked = set()
    for request in [
        *await table_requests(catalog, victims, attack.eve.id),
        *await function_requests(catalog, victims, attack.eve.id),
    ]:
        # One request of each kind for each table, column and function.
        kind = (request.method, request.path.split("=eq.")[0], str(request.body and sorted(request.body)))
        if kind not in asked:
            asked.add(kind)
            # 300: PostgREST does not know which of several relationships is meant.
            assert 300 <= (await attack.ask(request, signed_in=False)).status_code < 500, request
    assert await changed(catalog, victims, before, attack.eve.id) == []


async def test_the_data_api_serves_no_other_schema(attack: Attack) -> None:
    requests = await schema_requests(attack.catalog)
    assert len(requests) > 100
    for request in requests:
        assert (await attack.ask(request)).is_client_error, request


async def test_a_hostile_client_learns_and_changes_nothing_by_any_route(attack: Attack) -> None:
    catalog, victims, eve = attack.catalog, attack.victims, attack.eve
    before = await catalog.mentions(victims.ids)
    device, victim = victims.rows["user_devices"][0]["device_id"], str(victims.users[0].id)
    body = {"device_id": device, "platform": "ios", "push_token": OWN_TOKEN}
    forged = {"user_id": victim, "p_user_id": victim, "id": victim}
    for method, path in routes(attack.cloud):
        for content in (
            {},
            {"params": {"device_id": device}},
            {"json": body},
            {"params": forged, "json": {**body, **forged}},
        ):
            answer = await eve.call(method, path, **content)
            assert answer.status_code < 500
            assert not learned(victims.secrets | keys_of(attack.cloud), f"{content} {device}", answer), answer.text
    assert await changed(catalog, victims, before, eve.id) == []


async def test_a_hostile_client_receives_nothing_of_others_on_any_channel(attack: Attack) -> None:
    """Eve listens to each published table, and joins the channels of the victims as private and as public ones.

    Not tried: Realtime sends the primary key of a deleted row to everyone who listens. The app deletes no row.
    """
    cloud, victims, eve = attack.cloud, attack.victims, attack.eve
    vera, victor = victims.users
    room = UUID(victims.rows["chat_rooms"][0]["id"])
    topics = [f"user:{vera.id}", f"user:{victor.id}", f"room:{room}"]
    mallory = await attack.app.sign_up("Mallory", "guide")
    own_room = await eve.open_chat(mallory)
    tables = await attack.catalog.published()
    key = cloud.supabase.publishable_key
    async with (
        python_client(cloud.realtime.url, key) as refused,
        app_phone(cloud, eve) as listening,
        app_phone(cloud, victor) as victors_phone,
    ):
        for client in (refused, listening.client):
            await client.set_auth(eve.access_token)
        for topic in topics:
            await refused.join(topic, {"private": True}, [], True)
            await listening.client.join(topic, {}, [], True)
            await listening.client.events.until("status", topic=topic, status="SUBSCRIBED")
        for table in tables:
            await listening.client.join(table, {}, [{"event": "*", "schema": "public", "table": table}], False)
        for table in tables:
            await listening.client.events.until("system", topic=table, message="Subscribed to PostgreSQL")
        await victors_phone.client.join(f"room:{room}", {"private": True}, [], True)
        await victors_phone.client.events.until("status", topic=f"room:{room}", status="SUBSCRIBED")

        for topic in topics:
            await listening.client.send(topic, "typing", {"says": OWN_WORDS})
            await listening.client.track(topic, {"says": OWN_WORDS})
            await listening.client.http_send(topic, "message", {"says": OWN_WORDS}, True)
        message = await vera.send(room, "Vera says where they meet now")
        await vera.edit(message, "Vera says where they meet later")
        await vera.look_at(room)
        await victor.read(room)
        await victors_phone.client.send(f"room:{room}", "typing", {"user_id": str(victor.id), "is_typing": True})
        await victors_phone.client.track(f"room:{room}", {"user_id": str(victor.id)})
        await vera.client.table("chat_rooms").update({"archived_by_user1": True}).eq("id", str(room)).execute()
        await vera.delete(message)
        while not (await victors_phone.message("UPDATE", message))["deleted_at"]:
            pass
        for topic in topics:
            await refused.events.until("status", topic=topic, status="CHANNEL_ERROR")

        # Rows and events arrive in order: these are the last.
        last = await mallory.send(own_room, "Mallory says hello")
        await eve.read(own_room)
        await eve.look_at(own_room)
        await listening.message("INSERT", last)
        await listening.marks(last)
        for table in tables:
            await listening.client.events.until("row", topic=table)
        foreign = victims.secrets | {str(message), "where they meet"}
        for event in refused.events.history + listening.client.events.history:
            told = str({name: value for name, value in event.items() if name not in ("topic", "error")})
            assert not [secret for secret in foreign if secret in told], event
        assert OWN_WORDS not in str(victors_phone.client.events.history)
