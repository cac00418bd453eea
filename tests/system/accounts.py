"""Accounts that clients sign in to."""

import secrets
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import aiohttp

from local.cloud import LocalCloud

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Account:
    """A person, and how to sign in. `access_token`: of the sign-up."""

    id: UUID
    email: str
    access_token: str


async def sign_up(cloud: LocalCloud, name: str, role: Literal["tourist", "guide"]) -> Account:
    """A new account with a profile."""
    email = f"{name.lower()}-{secrets.token_hex(4)}@example.com"
    headers = {"apikey": cloud.supabase.publishable_key}
    async with aiohttp.ClientSession(cloud.supabase.url, headers=headers, raise_for_status=True) as http:
        async with http.post("/auth/v1/signup", json={"email": email, "password": PASSWORD}) as answer:
            session = await answer.json()
        row = {"id": session["user"]["id"], "display_name": name, "role": role}
        authorization = {"Authorization": f"Bearer {session['access_token']}"}
        async with http.post("/rest/v1/users", headers=authorization, json=row):
            pass
    return Account(UUID(session["user"]["id"]), email, session["access_token"])


async def open_chat(cloud: LocalCloud, one: Account, other: Account) -> UUID:
    """The id of the conversation of two people."""
    headers = {"apikey": cloud.supabase.publishable_key, "Authorization": f"Bearer {one.access_token}"}
    people = {"p_user1_id": str(one.id), "p_user2_id": str(other.id)}
    url = f"{cloud.supabase.url}/rest/v1/rpc/get_or_create_conversation"
    async with aiohttp.request("POST", url, headers=headers, json=people, raise_for_status=True) as answer:
        return UUID(await answer.json())
