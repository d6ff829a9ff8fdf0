"""Sessions over GraphQL: where a member is signed in, and how that is ended."""

from datetime import datetime
from typing import Annotated, Any, cast

import strawberry
from strawberry import Info

from api.directives import Input, argument, personal, public
from api.meanings import described
from api.operation import Operation
from api.paging import Connection, Node, UserError, cursor, local_id, window
from api.sign_in import told
from domain import sessions
from domain.errors import NotFound
from domain.sessions import SessionView
from tenants.access import Permission
from tenants.signing_in.sessions import Device as DeviceDocument
from tenants.signing_in.sessions import Method
from tenants.viewers import MemberId

_SHAPE = "the shape of a payload"
_LIST = "sessions"
_READ = "codes and moments, for whoever may see the session"
_ONESELF = "what one may know of oneself"
_OWN = f"one's own, or with {Permission.MEMBERS_MANAGE} those of all members"
_ID = Annotated[strawberry.ID, argument(Input(why="an id opens nothing by itself"), "The session's.")]
_FIRST = Annotated[int | None, argument(Input(why="a size"), "1 to 100; 20 unless told.")]
_CURSOR = Annotated[
    str | None, argument(Input(why="holds a clear sort key and an id, under a MAC"), "An end or edge of the list.")
]

described(
    Method,
    "How a member signed in.",
    name="SignInMethod",
    PASSWORD="By password, with a code where there is a second factor.",  # noqa: S106  # the name of a way
    OIDC="By the tenant's OpenID provider.",
)


@strawberry.type(description="What a session was begun from, as far as the request told.")
class Device:
    user_agent: str | None = personal("device", DeviceDocument.fields["user_agent"])
    address: str | None = personal("device", DeviceDocument.fields["address"])


@strawberry.type(description="What a session of one's own was begun from, whole.")
class OwnDevice:
    user_agent: str | None = public(_ONESELF)
    address: str | None = public(_ONESELF)


@strawberry.type(description="Where a member is signed in. Its tokens open nothing once it has ended.")
class Session(Node):
    created_at: datetime = public(_READ)
    last_used_at: datetime = public(_READ, description="When its tokens were last renewed.")
    confirmed_at: datetime = public(_READ, description="When the member last proved to sit there.")
    expires_at: datetime = public(_READ, description="7 days after it was last used, 30 days after it began.")
    method: Method = public(_READ)
    is_current: bool = public(_READ, description="Whether it is the one that asks.")

    @public("its leaves have rules of their own")
    def device(self: Any) -> Device:
        return cast(Device, self)

    @public(_ONESELF, description="Where the session is one's own: its device whole, whatever one's levels are.")
    def own_device(self: Any, info: Info[Operation]) -> OwnDevice | None:
        shown = sorted({"OwnDevice.userAgent", "OwnDevice.address"} & info.context.selected)
        device = self.own_device(shown)
        return None if device is None else OwnDevice(user_agent=device.user_agent, address=device.address)

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, SessionView)


@strawberry.type
class SessionPayload:
    ended_id: strawberry.ID | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class EndedSessionsPayload:
    ended: int = public(_SHAPE, description="How many were ended.")
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class SessionQueries:
    @public(_OWN, description="Where a member is signed in, newest first.")
    async def sessions(
        self,
        info: Info[Operation],
        member: Annotated[
            strawberry.ID | None, argument(Input(why="an id opens nothing by itself"), "Oneself unless told.")
        ] = None,
        first: _FIRST = None,
        after: _CURSOR = None,
        last: _FIRST = None,
        before: _CURSOR = None,
    ) -> Connection[Session] | None:
        unit, of = info.context.unit, None if member is None else MemberId(local_id("Member", member))
        order = f"{_LIST} {of or unit.viewer.principal}"
        return Connection(
            page=await sessions.page(unit, of, window(unit, order, first, after, last, before)),
            cursor_of=lambda session: cursor(unit, order, (session.created_at, session.id)),
            count=lambda: sessions.count(unit, of),
        )


@strawberry.type
class SessionMutations:
    @public(_OWN, description="End a session: its tokens open nothing from the next request on.")
    async def end_session(self, info: Info[Operation], id: _ID) -> SessionPayload | None:
        try:
            await sessions.end(info.context.unit, local_id("Session", id))
        except NotFound as refused:
            return SessionPayload(ended_id=None, user_errors=told(refused, "id"))
        return SessionPayload(ended_id=id, user_errors=[])

    @public("one's own", description="End all sessions of one's own but this one.")
    async def end_other_sessions(self, info: Info[Operation]) -> EndedSessionsPayload | None:
        return EndedSessionsPayload(ended=await sessions.end_others(info.context.unit), user_errors=[])

    @public("one's own", description="End this session.")
    async def sign_out(self, info: Info[Operation]) -> EndedSessionsPayload | None:
        return EndedSessionsPayload(ended=int(await sessions.end_own(info.context.unit)), user_errors=[])
