"""A real mail server in the tests' own loop, that keeps what it takes; and the work of the job that writes letters."""

import asyncio
import re
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

import asyncpg
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from jobs.handling import Handling
from jobs.mails import send_by
from mail import Post
from tenants.database import Database
from tenants.jobs import JobId
from tenants.jobs.ledger import Ledger
from tenants.mails import SEND_MAIL
from tenants.viewers import TenantId
from tests.house import House

SENDER = "coffer@crm.example.org"
PORTAL = "https://portal.example.org"
USER, SECRET = "coffer", "s3cret/of mail"


@dataclass
class Inbox:
    """`answer` is what is said to the letter of each; `asked` how often it was."""

    port: int = 0
    letters: list[EmailMessage] = field(default_factory=list)
    answer: str = "250 OK"
    recipient: str = "250 OK"
    asked: int = 0
    was_secure: bool = False

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def to(self, address: str) -> list[EmailMessage]:
        return [letter for letter in self.letters if letter["To"] == address]

    def token_for(self, address: str) -> str:
        """Of the link in the newest letter to that address."""
        found = re.search(rf"{PORTAL}/(?:reset|accept)#token=(\S+)", self.to(address)[-1].get_content())
        assert found is not None
        return found[1]

    async def handle_RCPT(  # noqa: N802  # the library's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if self.recipient.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.recipient

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.asked += 1
        self.was_secure = session.ssl is not None
        if self.answer.startswith("250"):
            letter = message_from_bytes(cast(bytes, envelope.content), policy=policy.default)
            self.letters.append(letter)
        return self.answer


@asynccontextmanager
async def receiving(
    *, tls: ssl.SSLContext | None = None, implicit: bool = False, auth: bool = False
) -> AsyncIterator[Inbox]:
    inbox = Inbox()

    def check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        is_right = (data.login, data.password) == (USER.encode(), SECRET.encode())
        return AuthResult(success=is_right, handled=is_right)

    options: dict[str, Any] = {"authenticator": check, "auth_required": True} if auth else {}
    if implicit:
        options["auth_require_tls"] = False
    elif tls is not None:
        options |= {"tls_context": tls, "require_starttls": True}

    def speaking() -> SMTP:
        with warnings.catch_warnings():  # that a password is asked for without STARTTLS, where TLS came first
            warnings.simplefilter("ignore")
            return SMTP(inbox, enable_SMTPUTF8=True, **options)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(speaking, "127.0.0.1", 0, ssl=tls if implicit else None)
    inbox.port = server.sockets[0].getsockname()[1]
    try:
        yield inbox
    finally:
        server.close()


async def deliver(house: House, inbox: Inbox, tenant: str = "acme") -> list[JobId]:
    """Do every job of the tenant that writes a letter and is ready."""
    app = Database(house.api.settings.database_url, pool_size=2)
    ledger = Ledger(app, house.api.platform, "postman")
    handling = Handling(house.api.units, ledger, {SEND_MAIL: send_by(Post(inbox.url, SENDER), PORTAL)})
    try:
        jobs = await _waiting(house, tenant)
        for job in jobs:
            await handling.handle(TenantId(house.tenants[tenant].id), job)
        return jobs
    finally:
        await app.close()


async def _waiting(house: House, tenant: str) -> list[JobId]:
    superuser = await asyncpg.connect(house.superuser_url)
    try:
        rows = await superuser.fetch(
            "SELECT id FROM jobs WHERE tenant_id = $1 AND kind = 'send_mail' AND state = 'READY' ORDER BY id",
            house.tenants[tenant].id,
        )
    finally:
        await superuser.close()
    return [JobId(row["id"]) for row in rows]
