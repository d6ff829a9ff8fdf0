"""Refusals of the door to data; leaves of the one error tree whose root is `crypto.errors.CofferError`."""

from crypto.errors import CofferError


class Unauthenticated(CofferError):
    code = "UNAUTHENTICATED"
    message = "Sign in first: send a valid access token as `Authorization: Bearer …`."


class TenantSuspended(CofferError):
    code = "TENANT_SUSPENDED"
    message = "This tenant is suspended; ask the platform's operator."


class TenantNotReady(CofferError):
    code = "TENANT_NOT_READY"
    message = "This tenant is still being set up; try again shortly."
    retryable = True


class TenantUnknown(CofferError):
    code = "TENANT_UNKNOWN"
    message = "There is no tenant of that slug."


class SlugRefused(CofferError):
    code = "SLUG_REFUSED"
    message = "A slug is 2 to 40 characters of a-z, 0-9 and inner hyphens."


class SignInRefused(CofferError):
    code = "SIGN_IN_REFUSED"
    message = "Tenant, e-mail and password do not fit together."


class TooManyAttempts(CofferError):
    code = "TOO_MANY_ATTEMPTS"
    message = "Too many failed sign-ins; wait a while before the next."


class MemberExists(CofferError):
    code = "MEMBER_EXISTS"
    message = "A member with that e-mail exists already."


class MemberRefused(CofferError):
    code = "MEMBER_REFUSED"
    message = "The member's e-mail or password can't be used."


class DatabaseUnavailable(CofferError):
    code = "DATABASE_UNAVAILABLE"
    message = "The database does not answer; try again shortly."
    retryable = True


class Conflict(CofferError):
    code = "CONFLICT"
    message = "Another change was made at the same moment; try again."
    retryable = True


class UnsafeDatabase(CofferError):
    """Start-up found roles, grants or policies other than the promised ones; the message lists them."""

    code = "UNSAFE_DATABASE"
    message = "The database does not keep tenants apart."


class AuditUnavailable(CofferError):
    """What may not leave unrecorded did not leave."""

    code = "AUDIT_UNAVAILABLE"
    message = "The audit log can't be written, so nothing is shown; try again shortly."
    retryable = True


class LeaseLost(CofferError):
    """Another worker holds the job by now; what this one did in the step is undone."""

    code = "LEASE_LOST"
    message = "The job is in other hands by now."


class JobUnknown(CofferError):
    code = "NOT_FOUND"
    message = "There is no job of that id."


class TooSlow(CofferError):
    """A stream's reader fell behind by more than is kept for it."""

    code = "TOO_SLOW"
    message = "You fell too far behind; read anew what you follow, then subscribe again."
    retryable = True


class JobRefused(CofferError):
    """The job's present state does not allow it."""

    code = "JOB_REFUSED"
    message = "The job's present state does not allow this; read the job again."


class ChainBroken(CofferError):
    """Nothing is linked behind a break, so that it stays where it can be seen."""

    code = "AUDIT_CHAIN_BROKEN"
    message = "The audit log's chain is broken; look at it with `coffer audit verify`."


class ChainTooLong(CofferError):
    code = "AUDIT_CHAIN_TOO_LONG"
    message = "The audit log is too long to be verified in one request; use `coffer audit verify`."


class VerificationRuns(CofferError):
    code = "AUDIT_VERIFICATION_RUNS"
    message = "The audit log is being verified already; ask again when that has ended."
    retryable = True


class StoreUnavailable(CofferError):
    code = "AUDIT_STORE_UNAVAILABLE"
    message = "The audit log's second place does not answer; try again shortly."
    retryable = True


class ScheduleRefused(CofferError):
    """`argument` says which of a schedule's parts can't be used."""

    code = "SCHEDULE_REFUSED"
    message = "The schedule can't be used."

    def __init__(self, message: str, argument: str = "cron") -> None:
        super().__init__(message)
        self.argument = argument
