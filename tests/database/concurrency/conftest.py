"""What happens between connections is committed, in a database of the test's own."""

import pytest

from tests.database.chat import Chat, Database, start_chat


@pytest.fixture
async def chat(database: Database) -> Chat:
    """A conversation that each connection of the test's database sees."""
    return await start_chat(await database.connect())
