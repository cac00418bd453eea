"""Accounts that clients sign in to."""

import secrets
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import httpx

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
    async with httpx.AsyncClient(base_url=cloud.supabase.url, timeout=30) as http:
        headers = {"apikey": cloud.supabase.publishable_key}
        answer = await http.post("/auth/v1/signup", headers=headers, json={"email": email, "password": PASSWORD})
        session = answer.raise_for_status().json()
        headers["Authorization"] = f"Bearer {session['access_token']}"
        row = {"id": session["user"]["id"], "display_name": name, "role": role}
        (await http.post("/rest/v1/users", headers=headers, json=row)).raise_for_status()
    return Account(UUID(session["user"]["id"]), email, session["access_token"])


async def open_chat(cloud: LocalCloud, one: Account, other: Account) -> UUID:
    """The id of the conversation of two people."""
    headers = {"apikey": cloud.supabase.publishable_key, "Authorization": f"Bearer {one.access_token}"}
    people = {"p_user1_id": str(one.id), "p_user2_id": str(other.id)}
    async with httpx.AsyncClient(base_url=cloud.supabase.url, headers=headers, timeout=30) as http:
        answer = await http.post("/rest/v1/rpc/get_or_create_conversation", json=people)
    return UUID(answer.raise_for_status().json())
