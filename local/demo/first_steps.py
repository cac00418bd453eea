"""The commands that `./dev up` prints. They run as they are: from installing a fake phone to the push that it shows."""

from pathlib import Path

from local.cloud import LocalCloud
from local.packages import UP_ENV

# For bash. A message needs two accounts with profiles. The access token says whose device is registered.
_COMMANDS = r"""
call() { curl -sS -w '\n' --fail-with-body -H 'apikey: PUBLISHABLE_KEY' -H 'Content-Type: application/json' "$@"; }
sign_up() {
  call SUPABASE_URL/auth/v1/signup -d '{"email": "'$1-$RANDOM$RANDOM'@example.com", "password": "a long password"}' |
    python3 -c 'import json, sys; new = json.load(sys.stdin); print(new["access_token"], new["user"]["id"])'
}
profile() {
  call SUPABASE_URL/rest/v1/users -H "Authorization: Bearer $1" \
    -d '{"id": "'$2'", "display_name": "'$3'", "role": "'$4'"}'
}

# Install the app on a fake phone. Create two accounts, Gus and Tina. Register the phone for Gus.
call CONTROL_URL/phones -d '{"token": "ExponentPushToken[phone-of-gus]", "platform": "ios"}'
read -r GUS GUS_ID <<< "$(sign_up gus)"; profile $GUS $GUS_ID Gus guide
read -r TINA TINA_ID <<< "$(sign_up tina)"; profile $TINA $TINA_ID Tina tourist
call API_URL/api/push/register -H "Authorization: Bearer $GUS" \
  -d '{"device_id": "phone-of-gus", "platform": "ios", "push_token": "ExponentPushToken[phone-of-gus]"}'

# Tina writes to Gus. A second later his phone shows the message.
CHAT=$(call SUPABASE_URL/rest/v1/rpc/get_or_create_conversation -H "Authorization: Bearer $TINA" \
  -d '{"p_user1_id": "'$TINA_ID'", "p_user2_id": "'$GUS_ID'"}')
call SUPABASE_URL/rest/v1/chat_messages -H "Authorization: Bearer $TINA" \
  -d '{"room_id": '$CHAT', "sender_id": "'$TINA_ID'", "message": "Hello Gus"}'
sleep 1; call CONTROL_URL/phones/ExponentPushToken%5Bphone-of-gus%5D
"""


def commands(cloud: LocalCloud) -> str:
    """Returns the commands for bash, with the URLs and the publishable key of this cloud filled in."""
    values = {
        "PUBLISHABLE_KEY": cloud.supabase.publishable_key,
        "SUPABASE_URL": cloud.supabase.url,
        "CONTROL_URL": cloud.expo.control_url,
        "API_URL": cloud.api_url,
    }
    text = _COMMANDS.strip()
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def first_steps(cloud: LocalCloud, env_file: Path) -> str:
    """Returns what `./dev up` prints under the URLs and keys. `env_file`: the file that holds them."""
    option = "" if env_file == UP_ENV else f" --env {env_file}"
    return "\n".join(
        [
            "Chat with yourself, in two more terminals:",
            f"  ./dev chat --as Tina{option}",
            f"  ./dev chat --as Gus{option}",
            "",
            "Or by hand, in bash:",
            "",
            commands(cloud),
            "",
            "Then:",
            f"  {cloud.expo.control_url}  lists the requests that uninstall the app or make Expo fail",
            f"  ./dev doctor --env {env_file}  checks whether pushes are healthy",
            "  docs/client.md  describes what an app does; its package runs against this cloud",
            "  client/expo/example  is an app for browsers and phones that runs against this cloud",
        ]
    )
