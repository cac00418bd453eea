"""The picture in README.md shows what phones show."""

from local.cloud import LocalCloud
from local.demo.lock_screen import PICTURE, draw, three_messages


async def test_the_committed_lock_screen_is_what_the_fake_phones_show(cloud: LocalCloud) -> None:
    phones = await three_messages(cloud)
    assert [len(phone.shown) for phone in phones.values()] == [1, 1]
    assert PICTURE.read_text() == draw(phones), "draw it again: .venv/bin/python -m local.demo.lock_screen"
