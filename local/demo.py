"""The main job on real input, told as a story: who wrote what, and which phone showed what, and why.

Every part is the system's own: people sign up and write through the Supabase APIs; each scene says what each phone
should show and compares it with what the phone does show at the fake Expo service.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
from postgrest import APIError

from local.app import Person, new_phone, sign_up
from local.cloud import LocalCloud, local_cloud
from local.expo_faults import HttpError
from local.expo_protocol import Json
from local.phones import Phone

# So that the story takes seconds and not minutes; the defaults are in supabase/migrations/*_settings.sql.
STORY_SETTINGS = "update push.settings set presence_fresh_for = '3 seconds', retry_base = '0.5 seconds'"
PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class Screen:
    """How one message looks on one phone: how often it is visible, and what it says."""

    visible: int = 0
    title: str | None = None
    body: str | None = None


@dataclass
class Scene:
    """One message of the story. `facts` are what must be true besides what the phones show."""

    title: str
    expected: dict[str, Screen]
    message_id: UUID | None = None
    why: str = ""
    seconds: float = 0
    observed: dict[str, Screen] = field(default_factory=dict)
    arrivals: dict[str, int] = field(default_factory=dict)
    facts: dict[str, bool] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every phone showed what it should, and every fact is true."""
        return self.expected == self.observed and all(self.facts.values())

    def look(self, phones: Mapping[str, Phone]) -> None:
        """Notes what each phone shows of the message."""
        for name, phone in phones.items():
            shown = [arrival.message for arrival in phone.shown if arrival.message_id == str(self.message_id)]
            self.arrivals[name] = sum(arrival.message_id == str(self.message_id) for arrival in phone.arrived)
            newest = shown[-1] if shown else {}
            self.observed[name] = Screen(len(shown), newest.get("title"), newest.get("body"))

    def print(self) -> None:
        """One line for each phone and each fact, and why."""
        for name, screen in self.observed.items():
            mark = "✓" if screen == self.expected[name] else f"✗ expected {self.expected[name]}"
            shows = f"shows “{screen.title}: {screen.body}”" if screen.visible else "shows nothing"
            copies = (
                f", {self.arrivals[name]} copies arrived, {screen.visible} visible" if self.arrivals[name] > 1 else ""
            )
            print(f"   {name:<7} {shows}{copies} {mark}")
        for fact, is_true in self.facts.items():
            print(f"   {'fact':<7} {fact} {'✓' if is_true else '✗'}")
        print(f"   {'because':<7} {self.why} ({self.seconds:.1f} s)", flush=True)


@dataclass
class Story:
    """The people, their phones, and what was told of them so far."""

    cloud: LocalCloud
    tina: Person
    gus: Person
    omar: Person
    phones: Mapping[str, Phone]
    scenes: list[Scene] = field(default_factory=list)

    @asynccontextmanager
    async def scene(self, title: str, expected: Mapping[str, Screen]) -> AsyncIterator[Scene]:
        """Tells a scene: its body sends a message and sets message_id; then the phones are looked at."""
        scene = Scene(title, dict(expected))
        self.scenes.append(scene)
        print(f"\n{len(self.scenes)}. {title}", flush=True)
        begun = time.monotonic()
        yield scene
        scene.seconds = round(time.monotonic() - begun, 2)
        scene.look(self.phones)
        scene.print()

    async def job(self, message_id: UUID, reached: Callable[[Json], bool], sweep: bool = False) -> Json:
        """The push job once it has reached a state. `sweep`: meanwhile the schedule fires again and again."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not reached(job := await self.cloud.explain_push(message_id)):
                if sweep:
                    await self.sweep()
                await asyncio.sleep(0.1)  # The database tells nobody when a job changes.
        return job

    async def end(self, scene: Scene, sweep: bool = False) -> None:
        """Waits until the scene's push job is done, and notes why it ended as it did."""
        assert scene.message_id
        job = await self.job(scene.message_id, lambda job: job["state"] == "done", sweep)
        errors = {delivery["error"] for delivery in job["deliveries"] if delivery["error"]}
        attempts = f"attempt {job['attempts']}" if job["attempts"] > 1 else None
        scene.why = ", ".join(filter(None, [job["outcome"], job["reason"], attempts, *sorted(errors)]))

    async def sweep(self) -> None:
        """The schedule fires."""
        await self.cloud.scheduler.fire("SendChatPushSweep")


async def tell(cloud: LocalCloud) -> list[Scene]:
    """Runs the whole story."""
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        await connection.execute(STORY_SETTINGS)
    tina = await sign_up(cloud.supabase, "Tina", "tourist")
    omar = await sign_up(cloud.supabase, "Omar", "tourist")
    gus = await sign_up(cloud.supabase, "Gus", "guide")
    phones = {"iPhone": new_phone(cloud.expo, "ios"), "Pixel": new_phone(cloud.expo, "android")}
    for name, phone in phones.items():
        await gus.log_in_on(phone, device_id=f"gus-{name.lower()}")
    print("Tina and Omar are tourists, Gus is a guide with two phones. Presence counts for 3 s in this story.")
    story = Story(cloud, tina, gus, omar, phones)
    chat = await tina.open_chat(gus)
    for act in (
        _nobody_is_looking,
        _gus_is_looking,
        _gus_looks_at_another_conversation,
        _presence_went_stale,
        _sent_twice,
        _photo,
        _expo_answers_503_twice,
        _webhook_is_lost,
        _dead_token,
    ):
        await act(story, chat)
    return story.scenes


def _both(text: str) -> dict[str, Screen]:
    screen = Screen(1, "Tina", text)
    return {"iPhone": screen, "Pixel": screen}


async def _nobody_is_looking(story: Story, chat: UUID) -> None:
    async with story.scene("A message, and nobody is looking", _both("Hey, are you available tomorrow?")) as scene:
        scene.message_id = await story.tina.send(chat, "Hey, are you available tomorrow?")
        await story.end(scene)


async def _gus_is_looking(story: Story, chat: UUID) -> None:
    async with story.scene("Gus is looking at this conversation", {"iPhone": Screen(), "Pixel": Screen()}) as scene:
        await story.gus.look_at(chat)
        scene.message_id = await story.tina.send(chat, "I see that you are typing")
        await story.job(scene.message_id, lambda job: job["reason"] == "viewing")
        await story.gus.read(chat)
        await story.end(scene, sweep=True)
        scene.facts["he read it, and the push was skipped"] = scene.why == "skipped, viewing"


async def _gus_looks_at_another_conversation(story: Story, chat: UUID) -> None:
    async with story.scene("Gus is looking at his conversation with Omar", _both("Is the castle open?")) as scene:
        await story.gus.look_at(await story.omar.open_chat(story.gus))
        scene.message_id = await story.tina.send(chat, "Is the castle open?")
        await story.end(scene)


async def _presence_went_stale(story: Story, chat: UUID) -> None:
    async with story.scene("Gus's app was killed while it showed this conversation", _both("Hello?")) as scene:
        await story.gus.look_at(chat)
        scene.message_id = await story.tina.send(chat, "Hello?")
        await story.end(scene, sweep=True)


async def _sent_twice(story: Story, chat: UUID) -> None:
    async with story.scene("The app sends a message again with the same client_msg_id", _both("Still there?")) as scene:
        client_msg_id = str(uuid4())
        scene.message_id = await story.tina.send(chat, "Still there?", client_msg_id=client_msg_id)
        await story.end(scene)
        try:
            await story.tina.send(chat, "Still there?", client_msg_id=client_msg_id)
        except APIError as error:
            scene.facts["the second insert is refused as a duplicate (23505)"] = error.code == "23505"
        await story.sweep()
        scene.facts["each phone got one copy"] = {len(phone.arrived) for phone in story.phones.values()} == {4}


async def _photo(story: Story, chat: UUID) -> None:
    async with story.scene("A photo without text", _both("📷 Photo")) as scene:
        photo = {"type": "image", "url": "https://example.com/castle.jpg"}
        scene.message_id = await story.tina.send(chat, "", message_type="image", attachments=[photo])
        await story.end(scene)


async def _expo_answers_503_twice(story: Story, chat: UUID) -> None:
    async with story.scene("Expo delivers, but answers 503 twice", _both("See you at nine")) as scene:
        story.cloud.expo.script(HttpError(status=503, accepted=True), times=2)
        scene.message_id = await story.tina.send(chat, "See you at nine")
        await story.end(scene, sweep=True)


async def _webhook_is_lost(story: Story, chat: UUID) -> None:
    async with story.scene("The webhook is lost; the sweep finds the job", _both("At the fountain")) as scene:
        story.cloud.pg_net.lose(1)
        scene.message_id = await story.tina.send(chat, "At the fountain")
        await story.end(scene, sweep=True)


async def _dead_token(story: Story, chat: UUID) -> None:
    expected = {"iPhone": Screen(1, "Tina", "Thank you!"), "Pixel": Screen()}
    async with story.scene("The app was uninstalled on the Pixel", expected) as scene:
        story.cloud.expo.uninstall(story.phones["Pixel"].token)
        scene.message_id = await story.tina.send(chat, "Thank you!")
        await story.end(scene)
        devices = await story.gus.devices()
        scene.facts["the Pixel is switched off"] = not devices["gus-pixel"]["is_active"]
        scene.facts["the iPhone stays on"] = devices["gus-iphone"]["is_active"]


async def demo(json_file: Path | None) -> int:
    """Starts a local cloud, tells the story, writes it as data if asked to. 0 if everything was as it should be."""
    async with local_cloud() as cloud:
        scenes = await tell(cloud)
    wrong = [scene.title for scene in scenes if not scene.ok]
    if json_file:
        told = {"ok": not wrong, "messages": [asdict(scene) | {"ok": scene.ok} for scene in scenes]}
        json_file.write_text(json.dumps(told, indent=2, default=str, ensure_ascii=False) + "\n")
    print(f"\n{len(scenes) - len(wrong)} of {len(scenes)} scenes as they should be")
    return 1 if wrong else 0
