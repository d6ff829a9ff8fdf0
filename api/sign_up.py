"""Signing up over GraphQL: a tenant of one's own, where the operator lets everybody have one."""

from typing import Annotated

import strawberry
from strawberry import Info

from api.directives import Input, argument, input_, public
from api.operation import Operation
from api.paging import UserError, user_errors
from crypto.errors import CofferError
from domain import normalise, required
from domain.errors import BadInput, Path, Refused
from domain.errors import UserError as Reason
from mail import MailRefused
from tenants.errors import (
    MemberRefused,
    SignUpClosed,
    SignUpDone,
    SignUpsLimited,
    SlugRefused,
    SlugTaken,
    TokenRefused,
)
from tenants.ids import new_id
from tenants.signing_in.sign_up import SignUp
from tenants.tenants import check_slug
from tenants.viewers import TenantId

_SHAPE = "the shape of a payload"
_WHY = "how a tenant comes to be, where the operator lets everybody sign up"
_OWN = "about oneself; nothing is kept before the e-mail was proved"
# What a user can mend, or must know, by the input that it lies in.
_PATHS: dict[type[CofferError], Path] = {
    SignUpClosed: (),
    SignUpsLimited: (),
    SlugRefused: ("input", "slug"),
    SlugTaken: ("input", "slug"),
    MailRefused: ("input", "email"),
}
_LAST_PATHS: dict[type[CofferError], Path] = {
    SignUpClosed: (),
    SignUpDone: (),
    SlugRefused: ("token",),
    SlugTaken: ("token",),
    TokenRefused: ("token",),
    MemberRefused: ("password",),
}


@strawberry.input(description="The tenant that is wanted, and the e-mail of who is to own it.")
class SignUpInput:
    slug: str = input_(_OWN, description="2 to 40 of a-z, 0-9 and inner hyphens; it never changes.")
    name: str = input_(_OWN, description="What the company is called.")
    email: str = input_(_OWN, description="Of the owner to be; the letter goes there.")
    region: str = input_(_OWN, description="ISO 3166-1; phone numbers without a country code are read by it.")
    language: str = input_(_OWN, default="en", description="BCP 47.")


@strawberry.type
class SignUpPayload:
    is_sent: bool = public(_SHAPE, description="A letter is on its way.")
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class CompleteSignUpPayload:
    slug: str | None = public(_SHAPE, description="Of the new tenant; its owner may sign in now.")
    user_errors: list[UserError] = public(_SHAPE)


_CREDENTIAL = Input(why="part of a credential")


@strawberry.type
class SignUpMutations:
    @public(_WHY, description="Ask for a tenant: a letter to that e-mail brings a token for 24 hours.")
    async def sign_up(
        self,
        info: Info[Operation],
        input: Annotated[SignUpInput, argument(Input(why="its fields have rules"), "The tenant to be.")],
    ) -> SignUpPayload | None:
        _refuse_members(info)
        try:
            await info.context.services.signing_up.begin(_wanted(input), info.context.request.device.address)
        except Refused as refused:
            return SignUpPayload(is_sent=False, user_errors=user_errors(refused, ("input",)))
        except tuple(_PATHS) as refused:
            return SignUpPayload(is_sent=False, user_errors=_told(refused, _PATHS))
        return SignUpPayload(is_sent=True, user_errors=[])

    @public(
        _WHY,
        description="Go on with the token of the letter; may be repeated at any point. TENANT_NOT_READY: try again"
        " in a few seconds. ALREADY_DONE: sign in.",
    )
    async def complete_sign_up(
        self,
        info: Info[Operation],
        token: Annotated[str, argument(_CREDENTIAL, "Of the letter's link, behind `#token=`.")],
        owner_name: Annotated[str, argument(Input(why=_OWN), "What you are called.")],
        password: Annotated[str, argument(_CREDENTIAL, "12 to 256 characters.")],
    ) -> CompleteSignUpPayload | None:
        _refuse_members(info)
        signing_up, origin = info.context.services.signing_up, info.context.request.origin
        try:
            name = required.one(("ownerName",), owner_name, normalise.name)
            done = await signing_up.complete(token, name, password, origin)
        except Refused as refused:
            return CompleteSignUpPayload(slug=None, user_errors=user_errors(refused))
        except tuple(_LAST_PATHS) as refused:
            return CompleteSignUpPayload(slug=None, user_errors=_told(refused, _LAST_PATHS))
        return CompleteSignUpPayload(slug=done.slug, user_errors=[])


def _refuse_members(info: Info[Operation]) -> None:
    if info.context.viewer is not None:
        # Its unit holds a connection while this waits for others.
        raise BadInput("Sign up without an access token.")


def _wanted(input: SignUpInput) -> SignUp:
    """Raises `Refused` naming everything that can't be kept."""
    errors: list[Reason] = []
    try:
        check_slug(input.slug)
    except SlugRefused as refused:
        errors.append(Reason(refused.code, ("slug",), refused.message))
    name = required.text(errors, ("name",), input.name, normalise.name)
    email = required.text(errors, ("email",), input.email, normalise.email)
    region = required.text(errors, ("region",), input.region, normalise.country)
    language = required.text(errors, ("language",), input.language, normalise.language)
    if errors:
        raise Refused(errors)
    return SignUp(TenantId(new_id()), input.slug, name, email, region, language)


def _told(refused: CofferError, paths: dict[type[CofferError], Path]) -> list[UserError]:
    return user_errors(Refused([Reason(refused.code, paths[type(refused)], refused.message, refused.retry_after)]))
