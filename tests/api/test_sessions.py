"""A session lasts until it is ended: its tokens work once or not at all, and what ended is refused at once."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import jwt
import pytest

from api.paging import global_id
from tenants.access import Role
from tenants.signing_in import bearer_tokens
from tenants.signing_in.refresh_tokens import PREFIX
from tenants.viewers import Credential, SessionId
from tests.api.staff import local
from tests.api.test_subscriptions import CHANGED, hearing
from tests.api.test_websocket import Stage, serving, until
from tests.house import House
from tests.visitors import Visitor, a_member, a_visitor

SESSIONS = """query($m: ID) { sessions(member: $m) { totalCount nodes {
    id createdAt lastUsedAt expiresAt method isCurrent device { userAgent address } } } }"""
END = "mutation($id: ID!) { endSession(id: $id) { endedId userErrors { code path } } }"
NOTHING = "mutation { endOtherSessions { ended } }"


async def sessions_of(visitor: Visitor) -> list[dict[str, object]]:
    nodes: list[dict[str, object]] = (await visitor.data(SESSIONS))["nodes"]
    return nodes


async def again(visitor: Visitor, **signing: str) -> Visitor:
    """The same member at another device."""
    other = Visitor(visitor.house, visitor.tenant, visitor.email, visitor.member)
    assert await other.sign_in(**signing) == "IN"
    return other


async def ended_why(visitor: Visitor) -> list[str | None]:
    rows = await visitor.sql(
        "SELECT ended_why FROM member_sessions WHERE member_id = $1 ORDER BY created_at", visitor.member
    )
    return [row["ended_why"] for row in rows]


# Refresh tokens


async def test_a_refresh_token_gives_two_new_tokens_of_the_same_session(house: House) -> None:
    visitor = await a_visitor(house)
    access, refresh = visitor.access, visitor.refresh
    assert await visitor.renew() == "IN"
    assert visitor.refresh != refresh
    claims = [jwt.decode(token, options={"verify_signature": False}) for token in (access, visitor.access)]
    assert claims[0]["sid"] == claims[1]["sid"]
    assert await visitor.is_in()


async def test_a_refresh_token_that_comes_again_ends_the_session(house: House) -> None:
    visitor = await a_visitor(house)
    used = visitor.refresh
    assert await visitor.renew() == "IN"
    assert await visitor.renew(used) == "SESSION_ENDED"
    assert not await visitor.is_in()
    assert await visitor.renew() == "SESSION_ENDED"  # the newest one has gone with it
    assert await ended_why(visitor) == ["REFRESH_REUSED"]
    assert {"session.refresh_reused", "session.ended"} <= {action for action, _ in await visitor.actions()}


async def test_reuse_ends_that_session_and_no_other(house: House) -> None:
    visitor = await a_visitor(house)
    other, used = await again(visitor), visitor.refresh
    await visitor.renew()
    await visitor.renew(used)
    assert (await visitor.is_in(), await other.is_in()) == (False, True)


async def test_of_two_refreshes_at_once_one_wins_and_the_session_ends(house: House) -> None:
    visitor = await a_visitor(house)
    twins = [Visitor(house, "acme", visitor.email, visitor.member, refresh=visitor.refresh) for _ in range(4)]
    codes = await asyncio.gather(*(twin.renew() for twin in twins))
    assert sorted(codes) == ["IN", *["SESSION_ENDED"] * 3]
    (winner,) = [twin for twin in twins if twin.access]
    assert not await winner.is_in()


def other_ids(token: str, place: int) -> str:
    """A token with the same secret and another id at that place."""
    read = bearer_tokens.read(PREFIX, token, 3)
    assert read is not None
    ids = [uuid4() if n == place else each for n, each in enumerate(read.ids)]
    made, _ = bearer_tokens.make(PREFIX, *ids)
    return made[:68] + token[68:]


@pytest.mark.parametrize("place", range(3), ids=["tenant", "member", "session"])
async def test_a_refresh_token_of_somebody_else_is_refused_and_ends_nothing(house: House, place: int) -> None:
    visitor = await a_visitor(house)
    assert await visitor.renew(other_ids(visitor.refresh, place)) == "SESSION_ENDED"
    assert await visitor.renew() == "IN"


@pytest.mark.parametrize("token", ["", "cor_", "cor_AAAA", "cot_" + "A" * 107, "x" * 5000, "é"])
async def test_what_is_no_refresh_token_is_refused_in_the_same_words(house: House, token: str) -> None:
    visitor = await a_visitor(house)
    assert await visitor.renew(token) == "SESSION_ENDED"
    assert await visitor.is_in()


async def test_a_made_up_secret_for_a_known_session_ends_nothing(house: House) -> None:
    visitor = await a_visitor(house)
    read = bearer_tokens.read(PREFIX, visitor.refresh, 3)
    assert read is not None
    guess, _ = bearer_tokens.make(PREFIX, *read.ids)
    assert await visitor.renew(guess) == "SESSION_ENDED"
    assert await visitor.is_in()
    assert "session.refresh_reused" not in {action for action, _ in await visitor.actions()}


async def test_no_secret_of_a_token_is_in_the_database(house: House) -> None:
    visitor = await a_visitor(house)
    rows = await visitor.sql("SELECT t::text AS row FROM refresh_tokens t")
    read = bearer_tokens.read(PREFIX, visitor.refresh, 3)
    assert read is not None
    assert any(read.hash.hex() in row["row"] for row in rows)
    assert not any(visitor.refresh[-40:] in row["row"] for row in rows)


# How long


async def test_a_session_ends_seven_days_after_it_was_last_used_and_thirty_after_it_began(house: House) -> None:
    visitor = await a_visitor(house)
    (row,) = await visitor.sql(
        "SELECT expires_at - created_at AS lasts FROM member_sessions WHERE member_id = $1", visitor.member
    )
    assert row["lasts"] == timedelta(days=7)
    await visitor.sql(
        "UPDATE member_sessions SET created_at = now() - interval '29 days' WHERE member_id = $1", visitor.member
    )
    assert await visitor.renew() == "IN"
    (row,) = await visitor.sql(
        "SELECT expires_at - created_at AS lasts FROM member_sessions WHERE member_id = $1", visitor.member
    )
    assert row["lasts"] == timedelta(days=30)


async def test_a_session_that_ran_out_opens_nothing(house: House) -> None:
    visitor = await a_visitor(house)
    await visitor.sql("UPDATE member_sessions SET expires_at = now() WHERE member_id = $1", visitor.member)
    assert not await visitor.is_in()
    assert await visitor.renew() == "SESSION_ENDED"
    assert await ended_why(visitor) == [None]


# Listing


async def test_members_see_their_own_sessions_newest_first(house: House) -> None:
    visitor = await a_visitor(house, Role.OWNER)
    await again(visitor, agent="Chrome")
    first, second = await sessions_of(visitor)
    assert [first["isCurrent"], second["isCurrent"]] == [False, True]
    assert first["device"] == {"userAgent": "Chrome", "address": "127.0.0.1"}
    assert (first["method"], second["device"]) == ("PASSWORD", {"userAgent": "Firefox", "address": "127.0.0.1"})
    assert datetime.fromisoformat(str(first["expiresAt"])) > datetime.now(UTC) + timedelta(days=6)


async def test_me_tells_of_the_session_that_asks(house: House) -> None:
    visitor = await a_visitor(house)
    await again(visitor)
    (_, mine) = await sessions_of(visitor)
    assert (await visitor.data("{ me { session { id isCurrent } } }"))["session"] == {
        "id": mine["id"],
        "isCurrent": True,
    }
    assert (await house.data("{ me { session { id } } }"))["me"] == {"session": None}


async def test_a_device_is_masked_or_hidden_by_the_viewers_levels(house: House) -> None:
    visitor = await a_visitor(house, Role.ANALYST)
    (mine,) = await sessions_of(visitor)
    assert mine["device"] == {"userAgent": None, "address": "•••"}


OWN = "query($m: ID) { sessions(member: $m) { nodes { id device { userAgent } ownDevice { userAgent } } } }"


@pytest.mark.parametrize("role", [Role.ADMIN, Role.AGENT, Role.INTEGRATION])
async def test_ones_own_device_is_plain_whatever_ones_levels_are(house: House, role: Role) -> None:
    visitor = await a_member(house, role)
    await visitor.sign_in(agent="Kanari/2.0")
    (mine,) = (await visitor.data(OWN))["nodes"]
    assert mine["device"]["userAgent"] != "Kanari/2.0"
    assert mine["ownDevice"] == {"userAgent": "Kanari/2.0"}
    shown = await visitor.sql(
        "SELECT subjects, fields, details FROM audit_entries WHERE actor = $1 AND action = 'personal.disclosed'"
        " AND 'OwnDevice.userAgent:PLAIN' = ANY(fields)",
        visitor.member,
    )
    assert [(row["subjects"], json.loads(row["details"])["plain"]) for row in shown] == [([local(mine["id"])], 1)]


async def test_nobody_elses_device_is_ones_own(house: House) -> None:
    visitor = await a_member(house)
    await visitor.sign_in(agent="Kanari/3.0")
    answer = await house.data(OWN, {"m": global_id("Member", visitor.member)}, role=Role.ADMIN)
    (theirs,) = answer["sessions"]["nodes"]
    assert theirs["ownDevice"] is None
    assert "Kanari" not in str(answer)


async def test_a_device_is_sealed(house: House) -> None:
    visitor = await a_member(house)
    await visitor.sign_in(agent="Kanari/1.0")
    rows = await visitor.sql("SELECT t::text AS row FROM member_sessions t WHERE member_id = $1", visitor.member)
    assert rows
    assert not any(b"Kanari".hex() in row["row"] or "Kanari" in row["row"] for row in rows)


async def test_who_manages_members_sees_theirs_and_nobody_else_does(house: House) -> None:
    visitor = await a_visitor(house)
    sent = {"m": global_id("Member", visitor.member)}
    seen = await house.data(SESSIONS, sent, role=Role.ADMIN)
    assert seen["sessions"]["totalCount"] == 1
    for role in (Role.MANAGER, Role.AGENT, Role.AUDITOR):
        answer = await house.ask(SESSIONS, sent, role=role)
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    elsewhere = await house.ask(SESSIONS, sent, role=Role.OWNER, tenant="globex")
    assert (elsewhere["data"]["sessions"], elsewhere["errors"][0]["extensions"]["code"]) == (None, "NOT_FOUND")


async def test_a_session_is_a_node_for_whom_it_may_be_seen_by(house: House) -> None:
    visitor = await a_visitor(house)
    (mine,) = await sessions_of(visitor)
    ask = "query($id: ID!) { node(id: $id) { id ... on Session { method } } }"
    assert (await visitor.data(ask, id=mine["id"]))["method"] == "PASSWORD"
    assert (await house.data(ask, {"id": mine["id"]}, role=Role.ADMIN))["node"] is not None
    for tenant, role in (("acme", Role.AGENT), ("globex", Role.OWNER)):
        assert (await house.data(ask, {"id": mine["id"]}, role=role, tenant=tenant))["node"] is None


# Ending


async def test_signing_out_ends_the_session_from_the_next_request_on(house: House) -> None:
    visitor = await a_visitor(house)
    other = await again(visitor)
    assert (await visitor.data("mutation { signOut { ended } }"))["ended"] == 1
    assert (await visitor.is_in(), await other.is_in()) == (False, True)
    assert await visitor.renew() == "SESSION_ENDED"
    assert (await ended_why(visitor))[0] == "SIGNED_OUT"


async def test_all_other_sessions_are_ended_at_once(house: House) -> None:
    visitor = await a_visitor(house)
    others = [await again(visitor) for _ in range(3)]
    stranger = await a_visitor(house)
    assert (await visitor.data(NOTHING))["ended"] == 3
    assert [await other.is_in() for other in others] == [False] * 3
    assert (await visitor.is_in(), await stranger.is_in()) == (True, True)


async def test_members_end_one_of_their_sessions(house: House) -> None:
    visitor = await a_visitor(house)
    other = await again(visitor)
    (newest, _) = await sessions_of(visitor)
    assert (await visitor.data(END, id=newest["id"]))["endedId"] == newest["id"]
    assert (await visitor.is_in(), await other.is_in()) == (True, False)
    assert (await visitor.data(END, id=newest["id"]))["userErrors"] == [{"code": "NOT_FOUND", "path": ["id"]}]


async def test_nobody_ends_the_sessions_of_others_without_the_right_to(house: House) -> None:
    visitor = await a_visitor(house)
    (mine,) = await sessions_of(visitor)
    for tenant, role in (("acme", Role.MANAGER), ("acme", Role.AUDITOR), ("globex", Role.OWNER)):
        answer = await house.data(END, {"id": mine["id"]}, role=role, tenant=tenant)
        assert answer["endSession"]["userErrors"][0]["code"] == "NOT_FOUND"
    assert await visitor.is_in()


async def test_administrators_end_a_members_session(house: House) -> None:
    visitor = await a_visitor(house)
    (mine,) = await sessions_of(visitor)
    await house.data(END, {"id": mine["id"]}, role=Role.ADMIN)
    assert not await visitor.is_in()
    assert await ended_why(visitor) == ["ENDED_BY_ADMINISTRATOR"]


@pytest.fixture(scope="module")
async def stage(house: House) -> AsyncIterator[Stage]:
    async with serving() as made:
        made.app = house.api.app
        yield made


async def test_an_ended_session_is_shut_out_of_open_streams_within_five_seconds(stage: Stage, house: House) -> None:
    visitor = await a_visitor(house)
    async with stage.acknowledged({"authorization": f"Bearer {visitor.access}"}) as client:
        before = len(hearing(house))
        await client.subscribe({"query": CHANGED})
        await until(lambda: len(hearing(house)) == before + 1)
        await visitor.data("mutation { signOut { ended } }")
        async with asyncio.timeout(5):
            told = await client.receive()
    assert "UNAUTHENTICATED" in str(told)


async def test_a_session_is_no_other_members_and_no_other_tenants(house: House) -> None:
    visitor, other, elsewhere = await a_visitor(house), await a_visitor(house), await a_visitor(house, tenant="globex")
    (row,) = await visitor.sql("SELECT id FROM member_sessions WHERE member_id = $1", visitor.member)
    for thief in (other, elsewhere):
        credential = Credential(house.tenants[thief.tenant].id, thief.member, SessionId(row["id"]))
        thief.access = await house.api.tokens.issue(credential)
        assert not await thief.is_in()
    assert await visitor.is_in()


async def test_a_token_without_its_session_is_refused(house: House) -> None:
    visitor = await a_visitor(house)
    await visitor.sql("DELETE FROM member_sessions WHERE member_id = $1", visitor.member)
    assert not await visitor.is_in()
