"""Access keys of a user that live in a Secret: made, rotated, and ended after their grace.

A key works before the Secret has it, and the Secret says which keys may still work (a note that a person may break, but
not use: an access key counts only where S4 knows it as this user's, and a secret is never taken from there). Whatever
else of the operator's making the user has is what a crash left, and goes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from s4_operator.bucket_models import IssuedKey
from s4_operator.daemons import Daemons
from s4_operator.kube import Kube, Object
from s4_operator.models import seconds
from s4_operator.report import text_time
from s4_operator.resources import AT_REST_S
from s4_operator.secrets_of import Keys, new_keys, read

ROTATE = "s4.dev/rotate-key"  # of the resource: another value asks for another key
MADE_AT = "s4.dev/made-at"
PREVIOUS = "s4.dev/previous-keys"  # of the Secret: ACCESS=END in Unix seconds, with commas
MADE = re.compile(r"S4[0-9A-F]{18}")  # what `new_keys` makes


def rotation_of(resource: Object) -> str:
    return str(resource["metadata"].get("annotations", {}).get(ROTATE, ""))


async def ensure(
    kube: Kube,
    daemons: Daemons,
    resource: Object,
    user: str,
    grace: str,
    secret_of: Callable[[Keys], Object],
    stays: Callable[[str], bool] = lambda _: False,
) -> tuple[list[IssuedKey], float]:
    """All keys that work by this resource, the newest first, and when one of them ends. `secret_of` makes the Secret;
    keys that `stays` names are somebody else's business. Raises KubeError, DaemonError."""
    now_s, wanted = time.time(), rotation_of(resource)
    place = secret_of(Keys("", ""))["metadata"]
    secret = await kube.get("Secret", place["namespace"], place["name"])
    held, notes = read(secret), (secret or {}).get("metadata", {}).get("annotations", {})
    known = (await daemons.users()).get(user, [])
    previous = {
        access: end for access, end in _read_notes(notes.get(PREVIOUS, "")).items() if access in known and end > now_s
    }
    access, made_at = held.get("AWS_ACCESS_KEY_ID", ""), notes.get(MADE_AT, "")

    async def drop_others() -> None:
        for other in known:
            if other != access and other not in previous and not stays(other):
                await daemons.delete_key(user, other)

    if access not in known or "AWS_SECRET_ACCESS_KEY" not in held or notes.get(ROTATE, "") != wanted:
        if access in known and seconds(grace) > 0:
            previous[access] = now_s + seconds(grace)
        await drop_others()  # first, for there is a bound: each try whose Secret was refused left one
        keys, made_at = new_keys(), text_time(now_s)
        known, access = [access] if access in known else [], keys.access
        await daemons.put_key(user, keys.access, keys.secret)
        made = secret_of(keys)
        made["metadata"]["annotations"] = {ROTATE: wanted, MADE_AT: made_at, PREVIOUS: _noted(previous)}
        await kube.have(made)
    await drop_others()
    listed = [IssuedKey(accessKey=access, createdAt=made_at)]
    listed += [IssuedKey(accessKey=one, createdAt="", expiresAt=text_time(end)) for one, end in previous.items()]
    return listed, min([AT_REST_S, *(end - now_s + 1 for end in previous.values())])


def _read_notes(text: str) -> dict[str, float]:
    """Ends by access key; what a person changed into something else is passed over."""
    found = {}
    for part in text.split(","):
        access, _, end = part.partition("=")
        if access and re.fullmatch(r"[0-9]{1,10}", end):
            found[access] = float(end)
    return found


def _noted(previous: dict[str, float]) -> str:
    return ",".join(f"{access}={end:.0f}" for access, end in previous.items())
