"""Mail goes out here: by SMTP, or in development to the console. It knows addresses and texts, and nothing of ours."""

import asyncio
import smtplib
import ssl
import sys
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import TextIO
from urllib.parse import unquote, urlsplit

import certifi
import structlog

from crypto.errors import CofferError

PATIENCE = 10.0  # seconds for one mail, whatever the server does
CONSOLE = "console:"
_LOOPBACK = (None, "", "localhost", "127.0.0.1", "::1")
_log = structlog.get_logger()


class MailUnavailable(CofferError):
    """The mail server is away, too slow, or wants to be asked again later."""

    code = "MAIL_UNAVAILABLE"
    message = "The mail server does not take mail now; try again shortly."
    retryable = True


class MailUntrusted(CofferError):
    """For the operator to mend; until then letters wait."""

    code = "MAIL_UNTRUSTED"
    message = "The mail server can't be verified, offers no TLS, or refuses our credential."
    retryable = True


class MailRefused(CofferError):
    """The mail server will never take this mail."""

    code = "MAIL_REFUSED"
    message = "The mail server refuses this mail."


@dataclass(frozen=True, slots=True)
class Letter:
    """One plain text to one person. It holds an address and a link that opens something, so it does not print."""

    to: str = field(repr=False)
    subject: str = field(repr=False)
    body: str = field(repr=False)


class Post:
    """Where letters are given up.

    `url` is ``smtp://user:password@host:port`` (STARTTLS, which beyond loopback must succeed), ``smtps://…``, or
    ``console:``. `sender` is the address they come from; `ca_file` verifies the server, or the public CAs do.
    """

    def __init__(
        self,
        url: str,
        sender: str,
        *,
        ca_file: str | None = None,
        patience: float = PATIENCE,
        out: TextIO | None = None,
    ) -> None:
        self._url = url
        self._sender = sender
        self._ca_file = ca_file
        self._patience = patience
        self._out = out

    async def send(self, letter: Letter) -> None:
        """Returns once the server has taken it. Raises `MailUnavailable`, `MailUntrusted`, `MailRefused`."""
        if self._url == CONSOLE:
            self._print(letter)
            return
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.to_thread(self._deliver, self._message(letter))
        except TimeoutError:  # the thread ends by the socket's own timeout
            raise MailUnavailable from None

    def _message(self, letter: Letter) -> EmailMessage:
        message = EmailMessage(policy=policy.SMTP)
        try:
            message["From"], message["To"], message["Subject"] = self._sender, letter.to, letter.subject
        except ValueError:  # a line break in a header, which could add others
            raise MailRefused from None
        message["Date"] = formatdate(usegmt=True)
        message["Message-ID"] = make_msgid(domain=self._sender.rpartition("@")[2])
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834, 5: so that no holiday notice comes back
        message.set_content(letter.body)
        return message

    def _deliver(self, message: EmailMessage) -> None:
        parts = urlsplit(self._url)
        try:
            with self._connected(parts.scheme, parts.hostname, parts.port) as client:
                if parts.username:
                    client.login(unquote(parts.username), unquote(parts.password or ""))
                client.send_message(message)
        except smtplib.SMTPRecipientsRefused as refused:
            codes = [code for code, _ in refused.recipients.values()]
            raise (MailRefused if all(code >= 500 for code in codes) else MailUnavailable) from None
        except (smtplib.SMTPAuthenticationError, smtplib.SMTPNotSupportedError, ssl.SSLCertVerificationError):
            raise MailUntrusted from None
        except smtplib.SMTPResponseException as error:
            raise (MailRefused if error.smtp_code >= 500 else MailUnavailable) from None
        except (smtplib.SMTPException, OSError):
            raise MailUnavailable from None

    def _connected(self, scheme: str, host: str | None, port: int | None) -> smtplib.SMTP:
        context, seconds = ssl.create_default_context(cafile=self._ca_file or certifi.where()), self._patience / 2
        if scheme == "smtps":
            return smtplib.SMTP_SSL(host or "", port or 465, timeout=seconds, context=context)
        client = smtplib.SMTP(host or "", port or 587, timeout=seconds)
        client.ehlo_or_helo_if_needed()
        if client.has_extn("starttls"):
            client.starttls(context=context)
        elif host not in _LOOPBACK:
            client.close()
            raise MailUntrusted
        return client

    def _print(self, letter: Letter) -> None:
        """In development only, which settings see to: nowhere else is a value printed."""
        _log.info("mail printed")
        print(f"To: {letter.to}\nSubject: {letter.subject}\n\n{letter.body}", file=self._out or sys.stderr, flush=True)
