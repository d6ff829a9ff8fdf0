"""The texts of our letters. A link's token stands behind its ``#``, which browsers keep to themselves."""

from mail import Letter


def password_reset(to: str, tenant: str, portal: str, token: str) -> Letter:
    return Letter(
        to,
        f"{_one_line(tenant)}: set a new password",
        f"""Somebody, most likely you, asked for a new password at {tenant}.

Set it here within one hour:
{portal}/reset#token={token}

If it was not you, do nothing: your password stays as it is.
""",
    )


def invitation(to: str, tenant: str, portal: str, token: str) -> Letter:
    return Letter(
        to,
        f"{_one_line(tenant)} invites you",
        f"""You are invited to work with {tenant}.

Choose your password here within seven days:
{portal}/accept#token={token}

If you did not expect this, do nothing.
""",
    )


def webhook_disabled(to: str, tenant: str, portal: str, _token: str) -> Letter:
    return Letter(
        to,
        f"{_one_line(tenant)}: a webhook was disabled",
        f"""{tenant} sends events to a webhook endpoint that takes none any more, so it was disabled.

See which one, why, and what was not delivered:
{portal}/webhooks

When the receiver is well again, enable the endpoint and replay what it missed.
""",
    )


def sign_up(to: str, slug: str, portal: str, token: str) -> Letter:
    """Tells the slug alone, which is letters and digits: whoever asked for this may have put a text into the name."""
    return Letter(
        to,
        f"Your sign-up as {slug}",
        f"""Somebody, most likely you, asked for a tenant called {slug}.

Go on here within 24 hours:
{portal}/sign-up#token={token}

If it was not you, do nothing: nothing was made or kept.
""",
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
