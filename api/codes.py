"""Authorization codes (RFC 6749, section 4.1): the address that a browser fetches one at, and the exchange of one."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus, urlencode, urlsplit

from api import jose
from api.jose import BadToken
from api.openid import PATIENCE, Metadata
from crypto.errors import CofferError
from egress import Egress
from tenants.errors import SignOnRefused, SignOnUnavailable
from tenants.signing_in.sign_on import FlowSecret, SignOnProvider
from tenants.signing_in.sign_on_requests import Taken


@dataclass(frozen=True, slots=True)
class Client:
    """Who we are to the provider; without secret PKCE alone proves who began."""

    id: str
    secret: str | None = field(repr=False)


def may_return_to(uri: str, origins: frozenset[str]) -> bool:
    """A code goes to where the browser is sent, so that is an origin of ours; no fragment (RFC 6749, 3.1.2)."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    is_clean = uri.isascii() and uri.isprintable() and " " not in uri and "\\" not in uri and len(uri) <= 512
    return is_clean and "#" not in uri and f"{parts.scheme}://{parts.netloc}" in origins


def authorization_url(
    metadata: Metadata, provider: SignOnProvider, flow: FlowSecret, state: str, *, is_fresh: bool
) -> str:
    challenge = hashlib.sha256((flow.verifier or "").encode()).digest()
    asked = {
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": flow.redirect_uri or "",
        "scope": " ".join(provider.scopes),
        "state": state,
        "nonce": flow.nonce or "",
        "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
        **({"prompt": "login", "max_age": "0"} if is_fresh else {}),
    }
    endpoint = metadata.authorization_endpoint
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked, quote_via=quote)}"


async def exchange(egress: Egress, metadata: Metadata, client: Client, taken: Taken, code: str) -> Mapping[str, Any]:
    """Raises `SignOnRefused`, `SignOnUnavailable`."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": taken.redirect_uri,
        "code_verifier": taken.verifier,
    }
    headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
    if client.secret is None or metadata.secret_goes_in_form:
        form |= {"client_id": client.id} | ({"client_secret": client.secret} if client.secret else {})
    else:
        headers["Authorization"] = _basic(client.id, client.secret)
    body = urlencode(form).encode()
    try:
        answer = await egress.send("POST", metadata.token_endpoint, headers=headers, body=body, total_seconds=PATIENCE)
    except CofferError as error:
        raise SignOnUnavailable from error
    if answer.status >= 500:
        raise SignOnUnavailable
    try:
        if answer.status == 200:
            return jose.load(answer.body)
    except BadToken:
        pass
    raise SignOnRefused("code")


def _basic(client: str, secret: str) -> str:
    """RFC 6749, section 2.3.1: both are form-encoded first."""
    return "Basic " + base64.b64encode(f"{quote_plus(client)}:{quote_plus(secret)}".encode()).decode()
