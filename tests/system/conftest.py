"""Each test of the one running cloud begins with calm services and with new phones."""

from collections.abc import AsyncIterator

import pytest

from local.app import Person, chat_app
from local.cloud import LocalCloud
from tests.system.chat import Chat, Log, execute, phone_of

CALM = (
    "delete from push.jobs where state <> 'done'",
    "delete from public.user_devices",
    "delete from public.user_presence",
    # Retries take parts of a second, and the same people write in all tests. Everything else is as deployed.
    "update push.settings set presence_fresh_for = default,"
    " retry_base = '0.1 seconds', retry_cap = '0.5 seconds', message_limit = 10000, registration_limit = 10000",
)


@pytest.fixture
async def cloud(running_cloud: LocalCloud) -> LocalCloud:
    """The cloud without what earlier tests left: faults, jobs, phones, presence."""
    running_cloud.expo.reset()
    for statement in CALM:
        await execute(running_cloud, statement)
    return running_cloud


@pytest.fixture(scope="session")
async def people(running_cloud: LocalCloud) -> AsyncIterator[dict[str, Person]]:
    """Tina, a tourist, and the guides Gus, Omar and Greta."""
    async with chat_app(running_cloud.supabase, running_cloud.api_url) as app:
        tina = await app.sign_up("Tina", "tourist")
        guides = [await app.sign_up(name, "guide") for name in ("Gus", "Omar", "Greta")]
        yield {person.name.lower(): person for person in (tina, *guides)}


@pytest.fixture
async def chat(cloud: LocalCloud, people: dict[str, Person]) -> Chat:
    tina, gus = people["tina"], people["gus"]
    return Chat(cloud, id=await tina.open_chat(gus), phone=await phone_of(cloud, gus, "ios"), **people)


@pytest.fixture
def log(cloud: LocalCloud) -> Log:
    """What SendChatPush logs during the test."""
    return Log(cloud.functions["SendChatPush"])
