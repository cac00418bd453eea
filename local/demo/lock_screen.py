"""Draws docs/lock-screen.svg: what two phones show of three messages, as the fake Expo service delivered them.

Nothing in the picture is written by hand. After a change of what a notification holds, draw it again:

    .venv/bin/python -m local.demo.lock_screen

tests/docs/test_lock_screen.py compares the committed picture with what this module draws.
"""

import asyncio
from collections.abc import Mapping
from html import escape

from local.app import chat_app, new_phone
from local.cloud import LocalCloud, local_cloud
from local.packages import PROJECT
from local.providers.phones import Phone

PICTURE = PROJECT / "docs" / "lock-screen.svg"

_WIDTH, _HEIGHT, _GAP = 372, 280, 16  # one phone
_CARD_GAP, _LINE = 10, 20
_FONT = "-apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"


async def three_messages(cloud: LocalCloud) -> dict[str, Phone]:
    """Tina writes three messages to Gus; his two phones, by name, once Expo has accepted all pushes."""
    async with chat_app(cloud.supabase, cloud.api_url) as app:
        tina, gus = await app.sign_up("Tina", "tourist"), await app.sign_up("Gus", "guide")
        phones = {"iPhone": new_phone(cloud.expo, "ios"), "Pixel": new_phone(cloud.expo, "android")}
        for name, phone in phones.items():
            await gus.log_in_on(phone, device_id=name)
        chat = await tina.open_chat(gus)
        image = {"type": "image", "url": f"{cloud.supabase.url}/storage/v1/object/public/photos/fountain.jpg"}
        for text, columns in (
            ("Hey, are you available tomorrow?", {}),
            ("", {"message_type": "image", "attachments": [image]}),
            ("Shall we meet at the fountain?", {}),
        ):
            message_id = await tina.send(chat, text, **columns)
            await cloud.until_push(message_id)
    return phones


def draw(phones: Mapping[str, Phone]) -> str:
    """The lock screens side by side, as SVG. A card: title, body, and the channel. The app's icon: the newest badge."""
    width = len(phones) * (_WIDTH + _GAP) - _GAP
    screens = [_screen(name, phone, number * (_WIDTH + _GAP)) for number, (name, phone) in enumerate(phones.items())]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" width="{width}"'
            f' height="{_HEIGHT}" font-family="{_FONT}">',
            '<defs><linearGradient id="wallpaper" x1="0" y1="0" x2="1" y2="1">'
            '<stop offset="0" stop-color="#1e3a5f"/><stop offset="1" stop-color="#6b3f6e"/></linearGradient></defs>',
            *screens,
            "</svg>\n",
        ]
    )


def _screen(name: str, phone: Phone, x: int) -> str:
    newest_first = [arrival.message for arrival in reversed(phone.shown)]
    cards, y = [], 58
    for message in newest_first:
        height = 52 + _LINE * len(_lines(message))
        cards.append(_card(message, y, height))
        y += height + _CARD_GAP
    return "\n".join(
        [
            f'<g transform="translate({x} 0)">',
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="32" fill="url(#wallpaper)"/>',
            _text(name, _WIDTH // 2, 36, 17, fill="#fff", anchor="middle", weight=600),
            *cards,
            _icon(_WIDTH // 2 - 22, _HEIGHT - 64, 44),
            f'<circle cx="{_WIDTH // 2 + 22}" cy="{_HEIGHT - 64}" r="12" fill="#e5484d"/>',
            _text(newest_first[0]["badge"], _WIDTH // 2 + 22, _HEIGHT - 59, 14, fill="#fff", anchor="middle"),
            "</g>",
        ]
    )


def _lines(message: Mapping[str, object]) -> list[str]:
    return str(message["body"]).split("\n")


def _card(message: Mapping[str, object], y: int, height: int) -> str:
    return "\n".join(
        [
            f'<g transform="translate(16 {y})">',
            f'<rect width="{_WIDTH - 32}" height="{height}" rx="18" fill="#fff" fill-opacity="0.9"/>',
            _icon(14, 16, 40),
            _text(message["title"], 68, 32, 16, weight=600),
            *[_text(line, 68, 54 + row * _LINE, 15) for row, line in enumerate(_lines(message))],
            _text(message["channelId"], _WIDTH - 48, 30, 12, fill="#666", anchor="end"),
            "</g>",
        ]
    )


def _icon(x: int, y: int, size: int) -> str:
    return f'<rect x="{x}" y="{y}" width="{size}" height="{size}" rx="{size // 4}" fill="#1f6feb"/>' + _text(
        "💬", x + size // 2, y + size * 2 // 3, size // 2, anchor="middle"
    )


def _text(
    text: object, x: int, y: int, size: int, *, fill: str = "#111", anchor: str = "start", weight: int = 400
) -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{fill}" text-anchor="{anchor}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(str(text))}</text>'


async def _main() -> None:
    async with local_cloud() as cloud:
        PICTURE.write_text(draw(await three_messages(cloud)))
    print(f"written: {PICTURE.relative_to(PROJECT)}")


if __name__ == "__main__":
    asyncio.run(_main())
