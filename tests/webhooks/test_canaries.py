"""What is sent, and what receivers answer, comes out nowhere else: in no log of a sender, and not in the database."""

import asyncio
from pathlib import Path

from tenants.access import Role
from tenants.webhooks import Payload
from tests.canaries import Canaries, in_database
from tests.house import House
from tests.jobs.desk import until
from tests.webhooks.post import post_office
from tests.webhooks.receivers import Got, receiving, status
from tests.webhooks.workers import worker

CANARIES = Canaries(
    {
        "given": "Kanarihookgiven",
        "email": "kanarihook@birds.example.org",
        "government": "KANARIHOOK77341",
        "note": "kanarihook likes seeds",
        "path": "kanarihookpath",
        "answer": "kanarihookanswer",
        "header": "kanarihookheader",
    }
)


async def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def _answer(got: Got) -> bytes | object:
    """By the path; each in its own way says more than we want to know."""
    answer, header = CANARIES["answer"].encode(), CANARIES["header"]
    return {
        "echo": b"HTTP/1.1 200 OK\r\n\r\n" + got.body,
        "fails": status(500, f"Location: https://{header}.example.com/", f"Retry-After: {header}") + answer,
        "moves": status(302, f"Location: https://{header}.example.com/", f"ETag: {header}"),
        "babbles": answer + b"\r\n\r\n",
        "floods": b"HTTP/1.1 200 OK\r\n\r\n" + answer * 9_999,
        "aborts": _abort,
    }[got.path.rpartition("/")[2]]


KINDS = ("echo", "fails", "moves", "babbles", "floods", "aborts")


async def test_nothing_personal_is_in_the_log_of_a_sender_nor_in_the_database(house: House, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with receiving() as receiver, post_office(house) as post:
        receiver.answer = _answer  # type: ignore[assignment]  # bytes, or what writes them
        places = [f"http://{receiver.place}/{CANARIES['path']}/{kind}" for kind in KINDS]
        for url in [*places, f"https://10.0.0.1:8443/{CANARIES['path']}"]:
            await post.add(url, roles=[Role.OWNER], payload=Payload.FULL)
        person = {"givenName": CANARIES["given"], "emails": [CANARIES["email"]], "note": CANARIES["note"]}
        await post.customer(**person, governmentId=CANARIES["government"])
        unreadable = await post.customer(givenName=CANARIES["given"])
        flipped = "set_byte(profile, length(profile) - 1, get_byte(profile, length(profile) - 1) # 1)"
        await post.superuser.execute(f"UPDATE customers SET profile = {flipped} WHERE id = $1", unreadable)
        with log.open("wb") as file:
            async with worker(house, receiver, log=file):

                async def are_tried() -> bool:
                    tried = "SELECT DISTINCT delivery_id FROM webhook_attempts WHERE tenant_id = $1"
                    return len(await post.rows(tried)) == 2 * (len(KINDS) + 1)

                await until(are_tried)
                found = await in_database(house.superuser_url, CANARIES)
    bodies = b"".join(got.body for got in receiver.got)
    told = {line.removesuffix(" in a body") for line in CANARIES.found("a body", bodies)}
    assert told == {"given", "email", "government", "note"}
    assert log.read_bytes().count(b"sent thin") >= len(KINDS)
    assert (CANARIES.found("the log", log.read_bytes()), found) == ([], [])
