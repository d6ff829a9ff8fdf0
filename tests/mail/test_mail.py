"""Letters reach a real mail server over TLS, within bounds, and nothing slips into their headers."""

import asyncio
import io
import socket
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mail import Letter, MailRefused, MailUnavailable, MailUntrusted, Post, letters
from tests.inbox import SECRET, SENDER, USER, receiving

LETTER = Letter("ada@example.org", "Grüße", "Hällo\n.\nhttps://portal.example.org/reset#token=" + "x" * 120 + "\n")
PASSWORD = quote(SECRET, safe="")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """A server's own, and the file that verifies it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("mail")
    file = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context, str(folder / "ca.pem")


async def test_a_letter_arrives_as_it_was_written() -> None:
    async with receiving() as inbox:
        await Post(inbox.url, SENDER).send(LETTER)
    (got,) = inbox.letters
    assert (got["To"], got["From"], got["Subject"]) == (LETTER.to, SENDER, LETTER.subject)
    assert got.get_content().replace("\r\n", "\n") == LETTER.body
    assert got["Message-ID"].endswith("@crm.example.org>")
    assert got["Auto-Submitted"] == "auto-generated"


async def test_starttls_is_used_where_it_is_offered(certificate: tuple[ssl.SSLContext, str]) -> None:
    tls, ca_file = certificate
    async with receiving(tls=tls, auth=True) as inbox:
        url = f"smtp://{USER}:{PASSWORD}@127.0.0.1:{inbox.port}"
        await Post(url, SENDER, ca_file=ca_file).send(LETTER)
    assert inbox.was_secure
    assert len(inbox.letters) == 1


async def test_smtps_speaks_tls_from_the_start(certificate: tuple[ssl.SSLContext, str]) -> None:
    tls, ca_file = certificate
    async with receiving(tls=tls, implicit=True, auth=True) as inbox:
        url = f"smtps://{USER}:{PASSWORD}@127.0.0.1:{inbox.port}"
        await Post(url, SENDER, ca_file=ca_file).send(LETTER)
    assert len(inbox.letters) == 1


async def test_a_server_that_can_not_be_verified_gets_nothing(certificate: tuple[ssl.SSLContext, str]) -> None:
    async with receiving(tls=certificate[0]) as inbox:
        with pytest.raises(MailUntrusted):
            await Post(inbox.url, SENDER).send(LETTER)
    assert inbox.asked == 0


async def test_a_server_without_tls_is_trusted_on_loopback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mail._LOOPBACK", ())
    async with receiving() as inbox:
        with pytest.raises(MailUntrusted):
            await Post(inbox.url, SENDER).send(LETTER)
    assert inbox.asked == 0


async def test_a_refused_credential_is_for_the_operator_to_mend(certificate: tuple[ssl.SSLContext, str]) -> None:
    tls, ca_file = certificate
    async with receiving(tls=tls, auth=True) as inbox:
        with pytest.raises(MailUntrusted) as refused:
            await Post(f"smtp://{USER}:wrong@127.0.0.1:{inbox.port}", SENDER, ca_file=ca_file).send(LETTER)
    assert (refused.value.retryable, inbox.asked) == (True, 0)


@pytest.mark.parametrize("said", ["451 later", "421 busy"])
async def test_a_server_that_says_later_is_asked_again_later(said: str) -> None:
    async with receiving() as inbox:
        inbox.answer = said
        with pytest.raises(MailUnavailable):
            await Post(inbox.url, SENDER).send(LETTER)
        inbox.answer, inbox.recipient = "250 OK", said
        with pytest.raises(MailUnavailable):
            await Post(inbox.url, SENDER).send(LETTER)


async def test_a_server_that_says_never_is_not_asked_again() -> None:
    async with receiving() as inbox:
        inbox.answer = "554 no"
        with pytest.raises(MailRefused) as refused:
            await Post(inbox.url, SENDER).send(LETTER)
        inbox.recipient = "550 nobody here"
        with pytest.raises(MailRefused):
            await Post(inbox.url, SENDER).send(LETTER)
    assert not refused.value.retryable
    assert "ada" not in str(refused.value)


async def test_a_server_that_is_away_or_says_nothing_holds_nobody_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel connects, and nobody speaks
        port = silent.getsockname()[1]
        async with asyncio.timeout(5):
            with pytest.raises(MailUnavailable):
                await Post(f"smtp://127.0.0.1:{port}", SENDER, patience=0.3).send(LETTER)
    with pytest.raises(MailUnavailable):
        await Post(f"smtp://127.0.0.1:{port}", SENDER).send(LETTER)


@pytest.mark.parametrize(
    "letter",
    [Letter("a@example.org\nBcc: b@example.org", "s", "b"), Letter("a@example.org", "s\r\nBcc: b@example.org", "b")],
    ids=["address", "subject"],
)
async def test_a_line_break_adds_no_header(letter: Letter) -> None:
    async with receiving() as inbox:
        with pytest.raises(MailRefused):
            await Post(inbox.url, SENDER).send(letter)
    assert inbox.asked == 0


async def test_the_console_prints_what_would_be_sent() -> None:
    out = io.StringIO()
    await Post("console:", SENDER, out=out).send(LETTER)
    assert LETTER.to in out.getvalue()
    assert LETTER.body in out.getvalue()


def test_a_letter_does_not_print_itself() -> None:
    assert "ada" not in repr(LETTER)


@pytest.mark.parametrize("write", [letters.password_reset, letters.invitation])
def test_a_tenants_name_adds_no_header_and_the_token_stands_behind_the_hash(write: object) -> None:
    assert callable(write)
    letter = write("a@example.org", "Acme\r\nBcc: b@example.org", "https://portal.example.org", "cot_x")
    assert "\n" not in letter.subject
    assert "#token=cot_x\n" in letter.body


def test_mail_is_the_only_place_that_prints_a_letter() -> None:
    sources = Path(__file__).parent.parent.parent.glob("mail/*.py")
    assert [path.name for path in sources if "print(" in path.read_text()] == ["__init__.py"]
