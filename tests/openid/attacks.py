"""Tokens that are none, as makers of tokens: each takes a forge, which can sign whatever it likes, and gives a token.

RFC 8725, and what JWT libraries were found to take. `GOOD` is what every one of them is a small change of.
"""

import base64
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.openid.keys import text

Sign = Callable[[bytes], Awaitable[bytes]]
NOW = "iat"


@dataclass
class Forge:
    """The header and claims of a good token, and the key that signs it."""

    header: dict[str, Any]
    claims: dict[str, Any]
    sign: Sign
    public_pem: bytes
    public_jwk: dict[str, Any] = field(default_factory=dict)
    longest: int = 900

    async def token(self, header: dict[str, Any] | None = None, claims: dict[str, Any] | None = None) -> str:
        """What is None is left out."""
        return await self.raw(_json({**self.header, **(header or {})}), _json({**self.claims, **(claims or {})}))

    async def raw(self, header: bytes, claims: bytes) -> str:
        body = f"{text(header)}.{text(claims)}"
        return f"{body}.{text(await self.sign(body.encode()))}"

    def hmac(self, secret: bytes, header: dict[str, Any] | None = None) -> str:
        told = _json({**self.header, "alg": "HS256", **(header or {})})
        body = f"{text(told)}.{text(_json(self.claims))}"
        return f"{body}.{text(hmac.digest(secret, body.encode(), 'sha256'))}"


Attack = Callable[[Forge], Awaitable[str]]


def _json(found: dict[str, Any]) -> bytes:
    return orjson.dumps({name: value for name, value in found.items() if value is not None})


def header(**changes: Any) -> Attack:
    return lambda forge: forge.token(header=changes)


def claims(**changes: Any) -> Attack:
    return lambda forge: forge.token(claims=changes)


def timed(issued: int = 0, expires: int = 60, **more: Any) -> Attack:
    """Seconds from now."""
    return lambda forge: forge.token(
        claims={"iat": forge.claims[NOW] + issued, "exp": forge.claims[NOW] + expires, **more}
    )


def claimed(name: bytes, value: bytes) -> Attack:
    """A claim as it is spelt, which no writer of JSON would."""

    async def make(forge: Forge) -> str:
        kept = _json({each: found for each, found in forge.claims.items() if each.encode() != name})
        return await forge.raw(_json(forge.header), kept[:-1] + b',"%s":%s}' % (name, value))

    return make


def twice(name: bytes, value: bytes, *, in_header: bool = False, first: bool = False) -> Attack:
    """A name that comes twice: readers take the first or the last."""

    async def make(forge: Forge) -> str:
        told, said = _json(forge.header), _json(forge.claims)
        added = b'"%s":%s' % (name, value)
        whole = told if in_header else said
        changed = b"{" + added + b"," + whole[1:] if first else whole[:-1] + b"," + added + b"}"
        return await (forge.raw(changed, said) if in_header else forge.raw(told, changed))

    return make


def bent(change: Callable[[str], str]) -> Attack:
    """A good token, spelt otherwise."""

    async def make(forge: Forge) -> str:
        return change(await forge.token())

    return make


async def _unsigned(forge: Forge) -> str:
    told = _json({**forge.header, "alg": "none"})
    return f"{text(told)}.{text(_json(forge.claims))}."


async def _unsigned_by(forge: Forge, name: str) -> str:
    return (await forge.token(header={"alg": name})).rpartition(".")[0] + "."


async def _nested(forge: Forge) -> str:
    inner = await forge.token()
    return await forge.raw(_json({**forge.header, "cty": "JWT"}), orjson.dumps(inner))


async def _signed_by_another(forge: Forge) -> str:
    head, _, signature = (await forge.token()).rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[5] ^= 1
    return f"{head}.{text(bytes(raw))}"


async def _of_another_body(forge: Forge) -> str:
    ours, theirs = await forge.token(), await forge.token(claims={"sub": "somebody else"})
    return f"{theirs.rpartition('.')[0]}.{ours.rpartition('.')[2]}"


async def _bom(forge: Forge) -> str:
    return await forge.raw(_json(forge.header), b"\xef\xbb\xbf" + _json(forge.claims))


async def _utf16(forge: Forge) -> str:
    return await forge.raw(_json(forge.header), _json(forge.claims).decode().encode("utf-16"))


async def _bad_utf8(forge: Forge) -> str:
    return await forge.raw(_json(forge.header), _json(forge.claims)[:-1] + b',"x":"\xff"}')


async def _deep(forge: Forge) -> str:
    return await forge.raw(_json(forge.header), _json(forge.claims)[:-1] + b',"x":' + b"[" * 1200 + b"]" * 1200 + b"}")


async def _surrogate(forge: Forge) -> str:
    return await forge.raw(_json(forge.header), _json(forge.claims)[:-1] + b',"x":"\\ud800"}')


async def _no_object(forge: Forge) -> str:
    return await forge.raw(_json(forge.header), b"[" + _json(forge.claims) + b"]")


async def _json_serialised(forge: Forge) -> str:
    head, claims_, signature = (await forge.token()).split(".")
    return orjson.dumps({"protected": head, "payload": claims_, "signature": signature}).decode()


def _last_bits(token: str) -> str:
    """The spare bits of the last character, which say nothing, set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) | 1]


_LARGE = b"1" + b"0" * 300
ATTACKS: dict[str, Attack] = {
    "alg none": _unsigned,
    "alg None with a signature": header(alg="None"),
    "alg nOnE without one": lambda forge: _unsigned_by(forge, "nOnE"),
    "alg left out": header(alg=None),
    "alg of a number": header(alg=1),
    "alg of a list": header(alg=["EdDSA", "RS256"]),
    "no signature": bent(lambda token: token.rpartition(".")[0] + "."),
    "HS256 with the public key": lambda forge: _now(forge.hmac(forge.public_pem)),
    "HS256 with the public key's JWK": lambda forge: _now(forge.hmac(orjson.dumps(forge.public_jwk))),
    "HS256 with nothing": lambda forge: _now(forge.hmac(b"")),
    "HS256 with an empty file as kid": lambda forge: _now(forge.hmac(b"", {"kid": "../../../../dev/null"})),
    "alg of another kind of key": header(alg="ES384"),
    "kid with a path": header(kid="../../../../dev/null"),
    "kid with SQL": header(kid="' UNION SELECT 'x' --"),
    "kid of another key": header(kid="other-1"),
    "kid of a list": header(kid=["first"]),
    "kid of an object": header(kid={"x": 1}),
    "kid with a command": header(kid="first|id"),
    "jku": header(jku="https://evil.example.org/jwks"),
    "x5u": header(x5u="https://evil.example.org/cert"),
    "jwk": lambda forge: forge.token(header={"jwk": forge.public_jwk}),
    "x5c": header(x5c=["MIIB"]),
    "crit": header(crit=["exp"]),
    "crit of nothing": header(crit=[]),
    "b64 false": header(b64=False, crit=["b64"]),
    "b64 false without crit": header(b64=False),
    "zip": header(zip="DEF"),
    "enc": header(enc="A128GCM"),
    "typ left out": header(typ=None),
    "typ JWT": header(typ="JWT"),
    "typ of a logout token": header(typ="logout+jwt"),
    "typ of a list": header(typ=["at+jwt"]),
    "an ID token": lambda forge: forge.token({"typ": "JWT"}, {"nonce": "n", "at_hash": "h"}),
    "a nested token": _nested,
    "alg twice": twice(b"alg", b'"none"', in_header=True),
    "alg twice, first": twice(b"alg", b'"none"', in_header=True, first=True),
    "kid twice": twice(b"kid", b'"x"', in_header=True, first=True),
    "sub twice": twice(b"sub", b'"x"', first=True),
    "sub twice, last": twice(b"sub", b'"x"'),
    "exp twice": twice(b"exp", b"1", first=True),
    "aud twice": twice(b"aud", b'"x"', first=True),
    "a name twice inside": claimed(b"x", b'{"a":1,"a":2}'),
    "exp left out": claims(exp=None),
    "iat left out": claims(iat=None),
    "sub left out": claims(sub=None),
    "iss left out": claims(iss=None),
    "aud left out": claims(aud=None),
    "exp 1e308": claimed(b"exp", b"1e308"),
    "exp 1e400": claimed(b"exp", b"1e400"),
    "exp NaN": claimed(b"exp", b"NaN"),
    "exp Infinity": claimed(b"exp", b"Infinity"),
    "exp of 300 digits": claimed(b"exp", _LARGE),
    "exp of a float": lambda forge: forge.token(claims={"exp": float(forge.claims["exp"])}),
    "exp of a text": lambda forge: forge.token(claims={"exp": str(forge.claims["exp"])}),
    "exp true": claims(exp=True),
    "exp of a list": lambda forge: forge.token(claims={"exp": [forge.claims["exp"]]}),
    "exp negative": claims(exp=-1),
    "iat of a float": lambda forge: forge.token(claims={"iat": float(forge.claims["iat"])}),
    "iat true": claims(iat=True),
    "iat negative": claims(iat=-(10**12)),
    "iat of 300 digits": claimed(b"iat", _LARGE),
    "iat zero": claims(iat=0),
    "nbf in the future": lambda forge: forge.token(claims={"nbf": forge.claims[NOW] + 300}),
    "nbf of a text": claims(nbf="0"),
    "nbf true": claims(nbf=True),
    "nbf of a float": claims(nbf=0.5),
    "nbf of 300 digits": claimed(b"nbf", _LARGE),
    "expired": timed(-600, -1),
    "of the future": timed(3600, 3660),
    "for too long": lambda forge: forge.token(claims={"exp": forge.claims[NOW] + forge.longest + 1}),
    "for ever": lambda forge: forge.token(claims={"exp": 2**53}),
    "two audiences": lambda forge: forge.token(claims={"aud": [forge.claims["aud"], "https://evil.example.org"]}),
    "the audience twice": lambda forge: forge.token(claims={"aud": [forge.claims["aud"]] * 2}),
    "another audience": claims(aud="https://evil.example.org"),
    "an audience in an object": claims(aud={"x": 1}),
    "no audience": claims(aud=[]),
    "another issuer": claims(iss="https://evil.example.org"),
    "the issuer with a slash": lambda forge: forge.token(claims={"iss": forge.claims["iss"] + "/"}),
    "the issuer in capitals": lambda forge: forge.token(claims={"iss": forge.claims["iss"].upper()}),
    "an issuer of a list": lambda forge: forge.token(claims={"iss": [forge.claims["iss"]]}),
    "sub of a number": claims(sub=7),
    "sub of nothing": claims(sub=""),
    "signed by another": _signed_by_another,
    "a signature of other claims": _of_another_body,
    "padded": bent(lambda token: token + "=="),
    "padded inside": bent(lambda token: token.replace(".", "=.", 1)),
    "spare bits set": bent(_last_bits),
    "a line break inside": bent(lambda token: token[:20] + "\n" + token[20:]),
    "a blank inside": bent(lambda token: token.replace(".", " .", 1)),
    "of four parts": bent(lambda token: token + ".x"),
    "of five parts": bent(lambda token: token + ".x.y"),
    "of two parts": bent(lambda token: token.rpartition(".")[0]),
    "a sign of plain base64": bent(lambda token: token[:-2] + "+/"),
    "a sign of no alphabet": bent(lambda token: token.replace(".", "!.", 1)),
    "JSON in place of parts": _json_serialised,
    "very long": lambda forge: forge.token(claims={"x": "x" * 20_000}),
    "nested deep": _deep,
    "a byte order mark": _bom,
    "UTF-16": _utf16,
    "bad UTF-8": _bad_utf8,
    "half a surrogate": _surrogate,
    "no object": _no_object,
}


async def _now(token: str) -> str:
    return token
