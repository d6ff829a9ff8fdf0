"""The job that writes a letter to a member. Sent again after a death, it brings a new link and the old one is void."""

from jobs.handling import Handler, Run
from mail import Letter, MailUnavailable, Post, letters
from tenants import mails
from tenants.mails import Draft, SendMail, Template

_TEXTS = {
    Template.PASSWORD_RESET: letters.password_reset,
    Template.INVITATION: letters.invitation,
    Template.WEBHOOK_DISABLED: letters.webhook_disabled,
}


def send_by(post: Post | None, portal: str) -> Handler:
    """`portal` is the origin that links lead to. None: this worker has no way to send, and such jobs wait."""

    async def send_mail(run: Run[SendMail]) -> None:
        if post is None:
            raise MailUnavailable
        async with run.step() as step:
            draft = await mails.draft(step.unit, run.arguments)
            if draft is None:
                return step.finish(result={"sent": 0})
            step.move(cursor=(run.cursor or 0) + 1)
        # Between two transactions: none waits for the mail server, and the link it carries is known before it leaves.
        await post.send(_letter(run.arguments.template, draft, portal))
        async with run.step() as step:
            step.finish(result={"sent": 1})
        return None

    return send_mail


def _letter(template: Template, draft: Draft, portal: str) -> Letter:
    return _TEXTS[template](draft.to, draft.tenant, portal, draft.token)
