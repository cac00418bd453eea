"""Where a window finds its server, and in a local cloud also an account and a fake phone."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit
from uuid import NAMESPACE_DNS, UUID, uuid5

import httpx

from chat_client import Settings, Timing
from local.packages import STATE, UP_ENV
from local.providers.phones import Phone

# Everybody on a local cloud may sign in as everybody.
LOCAL_PASSWORD = "a password of the local cloud"


class NotUsable(Exception):
    """There is nothing to chat with. The message says what to do."""


@dataclass(frozen=True)
class Project:
    """A project of Supabase with Chat Push. `control_url`: of the fake phones; None: it is no local cloud."""

    env_file: Path  # which describes it
    url: str
    publishable_key: str = field(repr=False)
    api_url: str | None
    control_url: str | None
    folder: Path  # the local databases of its windows

    def settings(self, name: str, timing: Timing) -> Settings:
        """The settings of the client in the window with this name. Creates the folder of its local database."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Settings(
            supabase_url=self.url,
            publishable_key=self.publishable_key,
            api_url=self.api_url,
            database=self.folder / f"{quote(name.casefold(), safe='')}.sqlite",
            timing=timing,
        )


def read_project(env_file: Path) -> Project:
    """The project whose URLs and keys are in a file of lines NAME=value. Raises NotUsable."""
    try:
        lines = [line.strip() for line in env_file.read_text().splitlines()]
    except FileNotFoundError:
        raise NotUsable(f"There is no file {env_file}, so no local cloud runs. {_start(env_file)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise NotUsable(f"--env {env_file} cannot be read: {error}") from None
    values = {name: value.strip("\"'") for name, _, value in (line.partition("=") for line in lines if line[:1] != "#")}
    for name in ("SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY"):
        if not values.get(name):
            raise NotUsable(f"--env {env_file} has no line {name}=...; API_URL is for pushes, and may be left out")
    control_url = values.get("EXPO_CONTROL_URL")
    host = urlsplit(values["SUPABASE_URL"]).netloc
    # The data of a local cloud end with it.
    folder = Path(values["FOLDER"]) / "chat" if control_url else STATE / "chat" / quote(host, safe="")
    return Project(
        env_file,
        values["SUPABASE_URL"],
        values["SUPABASE_PUBLISHABLE_KEY"],
        values.get("API_URL") or None,
        control_url or None,
        folder,
    )


@dataclass(frozen=True)
class LocalAccount:
    """An account on a local cloud."""

    id: UUID
    email: str


async def local_account(project: Project, http: httpx.AsyncClient, name: str) -> LocalAccount:
    """The account of a name on a local cloud, with a profile. It is created if there is none.

    Raises NotUsable if the cloud does not run any more.
    """
    email = f"{_key_of(name)}@example.com"
    headers = {"apikey": project.publishable_key}
    credentials = {"email": email, "password": LOCAL_PASSWORD}
    try:
        answer = await http.post(f"{project.url}/auth/v1/signup", headers=headers, json=credentials)
    except httpx.TransportError as error:
        file = project.env_file
        raise NotUsable(f"The local cloud of {file} does not run any more. {_start(file)}") from error
    if answer.is_client_error:  # it exists
        answer = await http.post(
            f"{project.url}/auth/v1/token", params={"grant_type": "password"}, headers=headers, json=credentials
        )
    session = answer.raise_for_status().json()
    headers |= {"Authorization": f"Bearer {session['access_token']}", "Prefer": "resolution=ignore-duplicates"}
    row = {"id": session["user"]["id"], "display_name": name}
    (await http.post(f"{project.url}/rest/v1/users", headers=headers, json=row)).raise_for_status()
    return LocalAccount(UUID(session["user"]["id"]), email)


class FakePhone:
    """The phone of a name on a local cloud, through the control API. Its app is what the window shows."""

    def __init__(self, http: httpx.AsyncClient, control_url: str, name: str) -> None:
        self.token = f"ExponentPushToken[{_key_of(name)[:22]}]"
        self._http = http
        self._phones = f"{control_url}/phones"
        self._url = f"{self._phones}/{quote(self.token, safe='')}"

    async def switch_on(self, account: UUID) -> None:
        """Installs the app if it is not, and signs the account in."""
        if (await self._http.get(self._url)).status_code == 404:
            (await self._http.post(self._phones, json={"token": self.token, "platform": "ios"})).raise_for_status()
        (await self._http.patch(self._url, json={"account": str(account)})).raise_for_status()

    async def state(self) -> Phone:
        """What the phone shows, and what arrived on it."""
        return Phone.model_validate_json((await self._http.get(self._url)).raise_for_status().content)

    async def open_app(self, unread: list[UUID], badge: int) -> None:
        """Brings the app to the foreground. It removes the notifications of what was read, and sets the badge."""
        body = {"unread_conversations": [str(each) for each in unread], "badge": badge}
        (await self._http.post(f"{self._url}/open", json=body)).raise_for_status()

    async def leave_app(self) -> None:
        """Sends the app to the background, so that the lock screen shows its notifications."""
        (await self._http.patch(self._url, json={"app": "background"})).raise_for_status()


def _start(env_file: Path) -> str:
    option = "" if env_file == UP_ENV else f" --env {env_file}"
    return f"Start one in another terminal: ./dev up{option}"


def _key_of(name: str) -> str:
    return uuid5(NAMESPACE_DNS, name.casefold()).hex
