"""The main job on real input, told as a story: who wrote what, which phone showed what, and why.

Every part is the system's own: people sign up and write through the Supabase APIs; each scene says what each phone
should show and compares it with what the phone does show at the fake Expo service.
"""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
from postgrest import APIError

from local.app import App, Person, chat_app, new_phone
from local.cloud import LocalCloud, local_cloud
from local.providers.expo.faults import HttpError
from local.providers.phones import Phone
from local.types import Json

# What somebody who has seen the story looks at.
READ_NEXT = {
    "README.md": "how a push finds its way, and who decides",
    "docs/client.md": "what your app does, with files to copy",
    "docs/deploy.md": "from three accounts to the first push",
    "docs/operate.md": "why a phone did not ring, alarms, costs",
    "./dev up": "the same cloud to play with, and commands to begin with",
}

# So that the story takes seconds and not minutes; the defaults are in supabase/migrations/*_settings.sql.
STORY_SETTINGS = (
    "update push.settings set presence_fresh_for = '3 seconds', retry_base = '0.5 seconds',"
    " unanswered_retry_delays = '{0.5 seconds, 0.5 seconds, 0.5 seconds}'"
)


@dataclass(frozen=True)
class Screen:
    """How one message looks on one phone: how often it is visible, and what it says."""

    visible: int = 0
    title: str | None = None
    body: str | None = None

    def __str__(self) -> str:
        if not self.visible:
            return "shows nothing"
        return f"shows “{self.title}: {self.body}”" + (f" {self.visible} times" if self.visible > 1 else "")


NOTHING = Screen()


@dataclass
class Scene:
    """One message of the story, and how each phone should show it. `facts` must be true besides."""

    title: str
    expected: Mapping[str, Screen]
    message_id: UUID | None = None
    push: str = "not ended"
    seconds: float = 0
    observed: dict[str, Screen] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)
    facts: dict[str, bool] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every phone showed what it should, and every fact is true."""
        return self.expected == self.observed and all(self.facts.values())

    def look(self, phones: Mapping[str, Phone]) -> None:
        """Notes what each phone shows of the message, and how many copies of it arrived."""
        for name, phone in phones.items():
            shown = [arrival.message for arrival in phone.shown if arrival.message_id == str(self.message_id)]
            newest: Json = shown[-1] if shown else {}
            self.observed[name] = Screen(len(shown), newest.get("title"), newest.get("body"))
            self.copies[name] = sum(arrival.message_id == str(self.message_id) for arrival in phone.arrived)

    def lines(self) -> list[str]:
        """The scene for a reader: each phone, each fact, and what became of the push."""
        lines = []
        for name, screen in self.observed.items():
            copies = f" ({self.copies[name]} copies arrived)" if self.copies[name] > 1 else ""
            wrong = "" if screen == self.expected[name] else f", but should: {self.expected[name]}"
            lines.append(f"{_mark(not wrong)} {name:<6} {screen}{copies}{wrong}")
        lines += [f"{_mark(is_true)} {fact}" for fact, is_true in self.facts.items()]
        return [*lines, f"  push   {self.push}, {self.seconds:.1f} s"]

    def data(self) -> Json:
        """The scene for a program."""
        return {
            "title": self.title,
            "message_id": str(self.message_id),
            "phones": {
                name: {
                    "expected": asdict(screen),
                    "observed": asdict(self.observed[name]),
                    "copies": self.copies[name],
                }
                for name, screen in self.expected.items()
            },
            "facts": self.facts,
            "push": self.push,
            "seconds": self.seconds,
            "ok": self.ok,
        }


def _mark(right: bool) -> str:
    return "✓" if right else "✗"


@dataclass
class Story:
    """The people, Gus's phones, and what was told of them so far."""

    cloud: LocalCloud
    tina: Person
    gus: Person
    omar: Person
    greta: Person
    phones: Mapping[str, Phone]
    scenes: list[Scene] = field(default_factory=list)

    @asynccontextmanager
    async def scene(self, title: str, expected: Mapping[str, Screen]) -> AsyncIterator[Scene]:
        """Tells a scene: its body sends a message and sets message_id; then the phones are looked at."""
        scene = Scene(title, expected)
        self.scenes.append(scene)
        print(f"\n{len(self.scenes)}. {title}", flush=True)
        begun = time.monotonic()
        try:
            yield scene
        except TimeoutError as error:  # The story goes on: other scenes may tell more.
            scene.facts[f"the push reaches its end ({error})"] = False
        scene.seconds = round(time.monotonic() - begun, 2)
        scene.look(self.phones)
        print("\n".join(f"   {line}" for line in scene.lines()), flush=True)

    async def log_in(self, person: Person, phone: str) -> None:
        """Somebody logs in on one of the phones."""
        await person.log_in_on(self.phones[phone], device_id=phone)

    async def end(self, scene: Scene, sweep: bool = False) -> None:
        """Waits until the scene's push job is done, and notes how it ended."""
        assert scene.message_id
        job = await self.cloud.until_push(scene.message_id, lambda job: job["state"] == "done", sweep=sweep)
        scene.push = ": ".join(filter(None, [job["outcome"], job["reason"]]))
        if job["attempts"] > 1:
            scene.push += f" at attempt {job['attempts']}"
        scene.push += "".join(f", {d['device_id']}: {d['error']}" for d in job["deliveries"] if d["error"])

    async def sweep(self) -> None:
        """The schedule fires."""
        await self.cloud.scheduler.fire("SendChatPushSweep")


async def tell(cloud: LocalCloud) -> list[Scene]:
    """Runs the whole story."""
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        await connection.execute(STORY_SETTINGS)
    async with chat_app(cloud.supabase, cloud.api_url) as app:
        story = await _cast(cloud, app)
        chat = await story.tina.open_chat(story.gus)
        for act in (
            _nobody_is_looking,
            _gus_is_looking,
            _gus_looks_at_another_conversation,
            _presence_went_stale,
            _sent_twice,
            _photo,
            _expo_answers_503_twice,
            _webhook_is_lost,
            _phone_changes_accounts,
            _logout,
            _dead_token,
        ):
            await act(story, chat)
    return story.scenes


async def _cast(cloud: LocalCloud, app: App) -> Story:
    tina = await app.sign_up("Tina", "tourist")
    omar = await app.sign_up("Omar", "tourist")
    gus = await app.sign_up("Gus", "guide")
    greta = await app.sign_up("Greta", "guide")
    phones = {"iPhone": new_phone(cloud.expo, "ios"), "Pixel": new_phone(cloud.expo, "android")}
    story = Story(cloud, tina, gus, omar, greta, phones)
    for phone in phones:
        await story.log_in(gus, phone)
    print("\nTina and Omar are tourists; Gus and Greta are guides. Gus has two phones. Tina writes to him.")
    print("In this story a heartbeat of presence counts for 3 s, and the sweep comes when it is needed.")
    return story


def _both(text: str) -> dict[str, Screen]:
    screen = Screen(1, "Tina", text)
    return {"iPhone": screen, "Pixel": screen}


async def _nobody_is_looking(story: Story, chat: UUID) -> None:
    text = "Hey, are you available tomorrow?"
    async with story.scene("A message: both phones show it", _both(text)) as scene:
        scene.message_id = await story.tina.send(chat, text)
        await story.end(scene)


async def _gus_is_looking(story: Story, chat: UUID) -> None:
    title = "Gus is looking at this conversation: no push"
    async with story.scene(title, {"iPhone": NOTHING, "Pixel": NOTHING}) as scene:
        await story.gus.look_at(chat)
        scene.message_id = await story.tina.send(chat, "I see that you are typing")
        await story.cloud.until_push(scene.message_id, lambda job: job["reason"] == "viewing")
        await story.gus.read(chat)
        await story.end(scene, sweep=True)
        scene.facts["he read it while he was looking, so the push was skipped"] = scene.push == "skipped: viewing"


async def _gus_looks_at_another_conversation(story: Story, chat: UUID) -> None:
    title = "Gus is looking at another conversation, the one with Omar: push"
    async with story.scene(title, _both("Is the castle open?")) as scene:
        await story.gus.look_at(await story.omar.open_chat(story.gus))
        scene.message_id = await story.tina.send(chat, "Is the castle open?")
        await story.end(scene)


async def _presence_went_stale(story: Story, chat: UUID) -> None:
    title = "Gus's app was killed while it showed this conversation: push, once its last heartbeat is stale"
    async with story.scene(title, _both("Hello, can you hear me?")) as scene:
        await story.gus.look_at(chat)
        scene.message_id = await story.tina.send(chat, "Hello, can you hear me?")
        await story.end(scene, sweep=True)


async def _sent_twice(story: Story, chat: UUID) -> None:
    title = "The app sends a message again, with the same client_msg_id: one push"
    async with story.scene(title, _both("Are you still there?")) as scene:
        before = _arrivals(story)
        client_msg_id = str(uuid4())
        scene.message_id = await story.tina.send(chat, "Are you still there?", client_msg_id=client_msg_id)
        await story.end(scene)
        try:
            await story.tina.send(chat, "Are you still there?", client_msg_id=client_msg_id)
            code = None
        except APIError as error:
            code = error.code
        await story.sweep()
        scene.facts["the second insert is refused as a duplicate (23505)"] = code == "23505"
        scene.facts["one copy arrived on each phone"] = _arrivals(story) == [count + 1 for count in before]


def _arrivals(story: Story) -> list[int]:
    return [len(phone.arrived) for phone in story.phones.values()]


async def _photo(story: Story, chat: UUID) -> None:
    async with story.scene("A photo without text", _both("📷 Photo")) as scene:
        photo = {"type": "image", "url": f"{story.cloud.supabase.url}/storage/v1/object/public/photos/castle.jpg"}
        scene.message_id = await story.tina.send(chat, "", message_type="image", attachments=[photo])
        await story.end(scene)


async def _expo_answers_503_twice(story: Story, chat: UUID) -> None:
    title = "Expo delivers, but answers 503 twice: sent again until it says yes, visible once"
    async with story.scene(title, _both("See you at nine")) as scene:
        story.cloud.expo.script(HttpError(status=503, accepted=True), times=2)
        scene.message_id = await story.tina.send(chat, "See you at nine")
        await story.end(scene, sweep=True)


async def _webhook_is_lost(story: Story, chat: UUID) -> None:
    async with story.scene("The webhook is lost: the sweep delivers", _both("At the fountain")) as scene:
        story.cloud.pg_net.lose(1)
        scene.message_id = await story.tina.send(chat, "At the fountain")
        await story.end(scene, sweep=True)


async def _phone_changes_accounts(story: Story, chat: UUID) -> None:
    title = "Greta logs in on the Pixel, where Gus never logged out: his messages show there no more, hers do"
    text = "The bus is late"
    async with story.scene(title, {"iPhone": Screen(1, "Tina", text), "Pixel": NOTHING}) as scene:
        await story.log_in(story.greta, "Pixel")
        scene.message_id = await story.tina.send(chat, text)
        await story.end(scene)
        hers = Scene("", {"iPhone": NOTHING, "Pixel": Screen(1, "Tina", "Hello Greta")})
        hers.message_id = await story.tina.send(await story.tina.open_chat(story.greta), "Hello Greta")
        await story.end(hers)
        hers.look(story.phones)
        await story.gus.log_out_of("Pixel")
        scene.facts["what Tina writes to Greta shows on the Pixel, and only there"] = hers.ok
        scene.facts["the Pixel is still Greta's after Gus's late logout"] = list(await story.greta.devices()) == [
            "Pixel"
        ]


async def _logout(story: Story, chat: UUID) -> None:
    title = "Greta logs out on the Pixel: what is written to her shows nowhere"
    async with story.scene(title, {"iPhone": NOTHING, "Pixel": NOTHING}) as scene:
        await story.greta.log_out_of("Pixel")
        scene.message_id = await story.tina.send(await story.tina.open_chat(story.greta), "Are you there, Greta?")
        await story.end(scene)
        scene.facts["she has no phone left, so the push was skipped"] = scene.push == "skipped: no_device"
    await story.log_in(story.gus, "Pixel")


async def _dead_token(story: Story, chat: UUID) -> None:
    title = "The app was removed from the Pixel, whose token is dead: the iPhone gets its push"
    async with story.scene(title, {"iPhone": Screen(1, "Tina", "Thank you!"), "Pixel": NOTHING}) as scene:
        story.cloud.expo.uninstall(story.phones["Pixel"].token)
        scene.message_id = await story.tina.send(chat, "Thank you!")
        await story.end(scene)
        # Dead tokens are looked at together, or a fault of Expo could deactivate everybody's devices.
        await story.cloud.scheduler.fire("CleanupReceiptsRun")
        devices = await story.gus.devices()
        scene.facts["the Pixel is switched off, the iPhone is not"] = (
            not devices["Pixel"]["is_active"] and devices["iPhone"]["is_active"]
        )


def conclude(scenes: list[Scene], json_file: Path | None) -> int:
    """Says how the story went, and writes it as data if asked to; 0 if everything was as it should be."""
    wrong = [f"{number}. {scene.title}" for number, scene in enumerate(scenes, 1) if not scene.ok]
    print(f"\n{len(scenes) - len(wrong)} of {len(scenes)} scenes are as they should be")
    print("".join(f"wrong: {title}\n" for title in wrong), end="")
    if json_file:
        told = {"ok": not wrong, "messages": [scene.data() for scene in scenes]}
        json_file.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
        print(f"as data: {json_file}")
    print("\nnext:", *(f"  {name:<16}{what}" for name, what in READ_NEXT.items()), sep="\n")
    return 1 if wrong else 0


async def demo(json_file: Path | None) -> int:
    """Tells the story in a fresh local cloud; the exit code."""
    async with local_cloud(schedules=True) as cloud:
        scenes = await tell(cloud)
    return conclude(scenes, json_file)
