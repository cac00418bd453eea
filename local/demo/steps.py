"""The steps of the demo, in their order. Tina and Gus chat with the Python client. Phones log in by the HTTP API."""

from postgrest import APIError

from local.app import new_phone
from local.demo.scenario import NOTHING, Scenario, Screen, Step
from local.providers.expo.faults import HttpError
from local.providers.fcm.faults import FcmError


def _both(text: str) -> dict[str, Screen]:
    screen = Screen(1, "Tina", text)
    return {"iPhone": screen, "Pixel": screen}


def _only_iphone(text: str) -> dict[str, Screen]:
    return {"iPhone": Screen(1, "Tina", text), "Pixel": NOTHING}


_NEITHER = {"iPhone": NOTHING, "Pixel": NOTHING}


async def _message(scenario: Scenario) -> None:
    text = "Hey, are you available tomorrow?"
    async with scenario.step("Tina writes to Gus. Both of his phones show the message.", _both(text)) as step:
        step.message_id = await scenario.send(text)
        await scenario.until_done(step)


async def _viewing_this_conversation(scenario: Scenario) -> None:
    title = "Gus is viewing this conversation. No phone shows the message."
    async with scenario.step(title, _NEITHER) as step:
        await scenario.look_at(scenario.chat)
        step.message_id = await scenario.send("I see that you are typing")
        await scenario.cloud.until_push(step.message_id, lambda job: job["reason"] == "viewing")
        await scenario.read()
        await scenario.until_done(step, sweep=True)
        step.checks["Gus read the message while he was viewing, so the push is skipped"] = (
            step.push == "skipped: viewing"
        )


async def _viewing_another_conversation(scenario: Scenario) -> None:
    title = "Gus is viewing another conversation, the one with Omar. Both phones show Tina's message."
    async with scenario.step(title, _both("Is the castle open?")) as step:
        await scenario.look_at(await scenario.guss_app.open_chat(scenario.omar.id))
        step.message_id = await scenario.send("Is the castle open?")
        await scenario.until_done(step)


async def _stale_presence(scenario: Scenario) -> None:
    title = "Gus's app was killed while he viewed this conversation. Both phones show the message later."
    async with scenario.step(title, _both("Hello, can you hear me?")) as step:
        await scenario.look_at(scenario.chat)
        await scenario.guss_app.close()  # It reports nothing any more, as one that was killed.
        step.message_id = await scenario.send("Hello, can you hear me?")
        await scenario.until_done(step, sweep=True)
    scenario.guss_app = await scenario.open_app(scenario.gus)


async def _inserted_twice(scenario: Scenario) -> None:
    title = "Tina's app inserts a message twice with the same client_msg_id. Each phone shows it once."
    async with scenario.step(title, _both("Are you still there?")) as step:
        before = scenario.arrivals()
        step.message_id = await scenario.send("Are you still there?")
        await scenario.until_done(step)
        sent = scenario.tinas_app.message(step.message_id)
        try:  # past the client, which finds out that the message is stored
            await scenario.tina.send(scenario.chat, sent.text, client_msg_id=sent.client_msg_id)
            code = None
        except APIError as error:
            code = error.code
        await scenario.cloud.sweep()
        step.checks["the database rejects the second insert as a duplicate (23505)"] = code == "23505"
        step.checks["one copy arrived on each phone"] = scenario.arrivals() == [count + 1 for count in before]


async def _photo(scenario: Scenario) -> None:
    title = "Tina sends a photo without text. Both phones show a text for it."
    async with scenario.step(title, _both("📷 Photo")) as step:
        photo = {"type": "image", "url": f"{scenario.cloud.supabase.url}/storage/v1/object/public/photos/castle.jpg"}
        step.message_id = await scenario.send("", [photo])
        await scenario.until_done(step)


async def _muted(scenario: Scenario) -> None:
    choices = scenario.guss_app.choices
    async with scenario.step("Gus has muted the conversation. No phone shows the message.", _NEITHER) as step:
        await choices.mute_conversation(scenario.chat)
        step.message_id = await scenario.send("It is raining")
        await scenario.until_done(step)
        step.checks["the push is skipped, because Gus chose so"] = step.push == "skipped: muted"
        await choices.unmute_conversation(scenario.chat)


async def _quiet_hours(scenario: Scenario) -> None:
    title = "Gus is in his quiet hours. Both phones show the message, without a sound."
    choices = scenario.guss_app.choices
    async with scenario.step(title, _both("Sleep well")) as step:
        await choices.set_notification_preferences(
            {"quiet_hours": {"zone": "Europe/Berlin", "from": "00:00", "until": "24:00"}}
        )
        step.message_id = await scenario.send("Sleep well")
        await scenario.until_done(step)
        step.checks["neither phone sounded"] = not any(
            arrival.sounded
            for phone in scenario.phones.values()
            for arrival in phone.arrived
            if arrival.message_id == str(step.message_id)
        )
        await choices.set_notification_preferences({"quiet_hours": None})


async def _blocked(scenario: Scenario) -> None:
    choices = scenario.guss_app.choices
    async with scenario.step(
        "Gus has blocked Tina. No phone shows her message, and she is not told.", _NEITHER
    ) as step:
        await choices.block_user(scenario.tina.id)
        step.message_id = await scenario.send("Why do you not answer?")
        await scenario.until_done(step)
        step.checks["the push is skipped, because Gus chose so"] = step.push == "skipped: blocked"
        await scenario.tinas_app.sync()
        step.checks["Tina's app shows the message as sent"] = (
            scenario.tinas_app.message(step.message_id).status == "sent"
        )
        await choices.unblock_user(scenario.tina.id)
        await scenario.guss_app.sync()
        # The conversation counts in the badges again. These pushes must not meet the faults of the next step.
        await scenario.cloud.sweep()
        await scenario.cloud.poller.until_idle()


async def _expo_answers_503(scenario: Scenario) -> None:
    title = "Expo delivers the push but answers 503, twice. It is sent again. Each phone shows one copy."
    async with scenario.step(title, _both("See you at nine")) as step:
        scenario.cloud.expo.script(HttpError(status=503, accepted=True), times=2)
        step.message_id = await scenario.send("See you at nine")
        await scenario.until_done(step, sweep=True)


async def _lost_webhook(scenario: Scenario) -> None:
    title = "The webhook is lost. The scheduled sweep sends the push."
    async with scenario.step(title, _both("At the fountain")) as step:
        scenario.cloud.pg_net.lose(1)
        step.message_id = await scenario.send("At the fountain")
        await scenario.until_done(step, sweep=True)


async def _account_switch(scenario: Scenario) -> None:
    title = "Greta logs in on the Pixel; Gus never logged out there. The Pixel shows her messages and no longer his."
    async with scenario.step(title, _only_iphone("The bus is late")) as step:
        await scenario.log_in(scenario.greta, "Pixel")
        step.message_id = await scenario.send("The bus is late")
        await scenario.until_done(step)
        to_greta = Step("", {"iPhone": NOTHING, "Pixel": Screen(1, "Tina", "Hello Greta")})
        to_her = await scenario.tinas_app.open_chat(scenario.greta.id)
        to_greta.message_id = await scenario.send("Hello Greta", conversation=to_her)
        await scenario.until_done(to_greta)
        to_greta.observe(scenario.phones)
        await scenario.gus.log_out_of("Pixel")
        step.checks["Tina's message to Greta is on the Pixel, and only there"] = to_greta.ok
        step.checks["the Pixel stays Greta's device when Gus logs out of it later"] = list(
            await scenario.greta.devices()
        ) == ["Pixel"]


async def _logout(scenario: Scenario) -> None:
    title = "Greta logs out on the Pixel. No phone shows a message to her."
    async with scenario.step(title, _NEITHER) as step:
        await scenario.greta.log_out_of("Pixel")
        chat = await scenario.tinas_app.open_chat(scenario.greta.id)
        step.message_id = await scenario.send("Are you there, Greta?", conversation=chat)
        await scenario.until_done(step)
        step.checks["Greta has no device left, so the push is skipped"] = step.push == "skipped: no_device"
    await scenario.log_in(scenario.gus, "Pixel")


async def _other_providers(scenario: Scenario) -> None:
    cloud, text, before = scenario.cloud, "The gate is open", scenario.phones
    new = {"iPhone by APNs": new_phone(cloud.apns, "ios"), "Pixel by FCM": new_phone(cloud.fcm, "android")}
    scenario.phones = before | new
    title = (
        "Gus logs in on two more phones, by APNs and by FCM. FCM answers 503 once. All phones show the message once."
    )
    async with scenario.step(title, dict.fromkeys(scenario.phones, Screen(1, "Tina", text))) as step:
        for phone in new:
            await scenario.log_in(scenario.gus, phone)
        cloud.fcm.script(FcmError(error="UNAVAILABLE", retry_after=1))
        step.message_id = await scenario.send(text)
        await scenario.until_done(step, sweep=True)
    for phone in new:
        await scenario.gus.log_out_of(phone)
    scenario.phones = before


async def _dead_token(scenario: Scenario) -> None:
    title = "The app was removed from the Pixel, so its token is dead. The iPhone still shows the message."
    async with scenario.step(title, _only_iphone("Thank you!")) as step:
        scenario.cloud.expo.uninstall(scenario.phones["Pixel"].token)
        step.message_id = await scenario.send("Thank you!")
        await scenario.until_done(step)
        # Dead tokens are reviewed together, so that a fault of Expo cannot deactivate every device.
        await scenario.cloud.scheduler.fire("CleanupReceiptsRun")
        devices = await scenario.gus.devices()
        step.checks["the Pixel is deactivated, and the iPhone stays active"] = (
            not devices["Pixel"]["is_active"] and devices["iPhone"]["is_active"]
        )


STEPS = (
    _message,
    _viewing_this_conversation,
    _viewing_another_conversation,
    _stale_presence,
    _inserted_twice,
    _photo,
    _muted,
    _quiet_hours,
    _blocked,
    _expo_answers_503,
    _lost_webhook,
    _account_switch,
    _logout,
    _other_providers,
    _dead_token,
)
