"""Signatures are Standard Webhooks to the letter: the public library takes ours, and refuses whatever was changed."""

import base64
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from crypto.webhooks import SigningSecret, headers, is_signed_by, signed_content

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "webhooks.json").read_text())
_AT = 1_767_225_600
_SECRET = SigningSecret(bytes(range(32)), bytes(range(32, 64)))
_BODY = '{"type":"customer.updated","data":{"city":"Köln"}}'.encode()


@pytest.mark.parametrize("vector", VECTORS, ids=[each["name"] for each in VECTORS])
def test_the_vectors_stand(vector: Mapping[str, Any]) -> None:
    secret = SigningSecret.load(vector["secret"], vector["privateKey"])
    body = vector["body"].encode()
    sent = headers(vector["id"], vector["timestamp"], body, [secret])
    assert sent["webhook-signature"] == f"{vector['v1']} {vector['v1a']}"
    assert secret.public_key == vector["publicKey"]
    assert is_signed_by(vector["publicKey"], vector["v1a"], signed_content(vector["id"], vector["timestamp"], body))


def test_the_vector_of_the_standard_stands() -> None:
    """github.com/standard-webhooks/standard-webhooks, the example of its libraries' tests."""
    secret = SigningSecret(base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), bytes(32))
    sent = headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [secret])
    assert sent["webhook-signature"].startswith("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= ")


@given(st.text(st.characters(codec="utf-8"), max_size=200), st.integers(24, 64))
def test_the_public_library_takes_every_message(text: str, length: int) -> None:
    secret, body = SigningSecret(bytes(length), bytes(32)), json.dumps({"text": text}).encode()
    sent = headers("msg_1", int(time.time()), body, [secret])
    assert Webhook(secret.secret).verify(body, sent) == {"text": text}


def test_while_a_secret_rotates_both_verify() -> None:
    other = SigningSecret.fresh()
    sent = headers("msg_1", int(time.time()), _BODY, [other, _SECRET])
    for secret in (other, _SECRET):
        assert Webhook(secret.secret).verify(_BODY, sent)
    assert len(sent["webhook-signature"].split()) == 4


_CHANGES: dict[str, Callable[[dict[str, str], bytes], tuple[dict[str, str], bytes]]] = {
    "another body": lambda sent, body: (sent, body + b" "),
    "another id": lambda sent, body: (sent | {"webhook-id": "msg_2"}, body),
    "a second later": lambda sent, body: (sent | {"webhook-timestamp": str(int(sent["webhook-timestamp"]) + 1)}, body),
    "no timestamp": lambda sent, body: ({k: v for k, v in sent.items() if k != "webhook-timestamp"}, body),
    "only v1a": lambda sent, body: (sent | {"webhook-signature": sent["webhook-signature"].split()[1]}, body),
    "another signature": lambda sent, body: (
        sent | {"webhook-signature": "v1," + base64.b64encode(bytes(32)).decode()},
        body,
    ),
}


@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES)
def test_the_public_library_refuses_what_was_changed(
    change: Callable[[dict[str, str], bytes], tuple[dict[str, str], bytes]],
) -> None:
    sent, body = change(headers("msg_1", int(time.time()), _BODY, [_SECRET]), _BODY)
    with pytest.raises(WebhookVerificationError):
        Webhook(_SECRET.secret).verify(body, sent)


@given(st.integers(0, len(_BODY) - 1), st.integers(1, 255))
def test_not_a_byte_can_be_changed(place: int, by: int) -> None:
    body = bytearray(_BODY)
    body[place] ^= by
    sent = headers("msg_1", 1_700_000_000, _BODY, [_SECRET])
    _, v1a = sent["webhook-signature"].split()
    assert not is_signed_by(_SECRET.public_key, v1a, signed_content("msg_1", 1_700_000_000, bytes(body)))


@pytest.mark.parametrize("off", [-301, 301])
def test_the_public_library_refuses_a_timestamp_301_seconds_off(off: int) -> None:
    sent, at_most = (headers("msg_1", _AT + by, _BODY, [_SECRET]) for by in (off, off - 1 if off > 0 else off + 1))
    with time_machine.travel(_AT, tick=False):
        assert Webhook(_SECRET.secret).verify(_BODY, at_most)
        with pytest.raises(WebhookVerificationError):
            Webhook(_SECRET.secret).verify(_BODY, sent)


def test_a_secret_is_of_the_standards_length_and_shows_nothing() -> None:
    for length in (23, 65):
        with pytest.raises(ValueError, match="24 to 64"):
            SigningSecret(bytes(length), bytes(32))
    assert SigningSecret.load(_SECRET.secret, _SECRET.private_key) == _SECRET
    assert "AAEC" not in repr(_SECRET) and "x00" not in repr(_SECRET)


def test_an_id_that_could_be_read_in_two_ways_is_refused() -> None:
    with pytest.raises(ValueError, match="two ways"):
        headers("msg_1.2", 1, b"", [_SECRET])


@pytest.mark.parametrize("key", ["", "whpk_", "whpk_AAAA", _SECRET.secret])
def test_what_is_no_public_key_verifies_nothing(key: str) -> None:
    _, v1a = _SECRET.signatures(b"x")
    assert not is_signed_by(key, v1a, b"x")
