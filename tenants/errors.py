"""Refusals of the door to data; leaves of the one error tree whose root is `crypto.errors.CofferError`."""

from collections.abc import Sequence
from datetime import datetime

from crypto.errors import CofferError


class Unauthenticated(CofferError):
    code = "UNAUTHENTICATED"
    message = "Sign in first: send a valid access token as `Authorization: Bearer …`."


class TenantFrozen(CofferError):
    """Reading goes on."""

    code = "TENANT_FROZEN"
    message = "Nothing can be changed now: a restore replaces the data, or the tenant is being closed."
    retryable = True


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


class SlugTaken(CofferError):
    code = "SLUG_TAKEN"
    message = "Another tenant has that slug; choose another one."


class SignUpClosed(CofferError):
    code = "SIGN_UP_CLOSED"
    message = "Nobody can sign up here; ask the platform's operator for a tenant."


class SignUpDone(CofferError):
    code = "ALREADY_DONE"
    message = "This sign-up is complete; sign in."


class SignUpsLimited(CofferError):
    code = "RATE_LIMITED"
    message = "Too many sign-ups; try again later."

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many sign-ups; try again in {seconds} s.")
        self.retry_after = seconds


class SignInRefused(CofferError):
    code = "SIGN_IN_REFUSED"
    message = "Tenant, e-mail and password do not fit together."


class SignInBusy(CofferError):
    """No password was looked at: too many wait for that. An attempt may be counted, as of any that was not finished."""

    code = "SIGN_IN_BUSY"
    message = "Too many sign-ins wait here; try again in 2 s."
    retryable = True
    retry_after = 2


class TooManyAttempts(CofferError):
    code = "TOO_MANY_ATTEMPTS"
    message = "Too many failed attempts; wait a while before the next."

    def __init__(self, seconds: int | None = None) -> None:
        super().__init__(None if seconds is None else f"Too many failed attempts; try again in {seconds} s.")
        self.retry_after = seconds


class SecondFactorRequired(CofferError):
    code = "SECOND_FACTOR_REQUIRED"
    message = "This member signs in with a code as well: the authenticator's, or a recovery code."


class ProofRefused(CofferError):
    code = "PROOF_REFUSED"
    message = "The password does not fit."


class SecondFactorRefused(ProofRefused):
    """Told only to who knew the password, where one was asked for."""

    code = "SECOND_FACTOR_REFUSED"
    message = "The code does not fit; wait for the next one."


class PasswordMissing(ProofRefused):
    """Whom a sign-on provider vouches for, or a service, has none to prove anything by."""

    code = "NO_PASSWORD"


class SessionEnded(CofferError):
    """The same for a refresh token that was used, ran out, or never was one."""

    code = "SESSION_ENDED"
    message = "This session has ended; sign in again."


class TokenRefused(CofferError):
    """The same for a one-time token that was used, ran out, was replaced, or never was one."""

    code = "TOKEN_REFUSED"
    message = "This link was used before, is too old, or was replaced by a newer one."


class IssuerTaken(CofferError):
    """Says nothing of who has it."""

    code = "ISSUER_TAKEN"
    message = "This issuer and client, or this issuer and audience, can't be used."


class SignOnRefused(CofferError):
    """The same for whatever was wrong: the audit log says what."""

    code = "SIGN_ON_REFUSED"
    message = "The provider's answer did not sign anybody in; begin again, or ask your administrator."

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why


class RedirectRefused(SignOnRefused):
    code = "REDIRECT_REFUSED"
    message = (
        "redirectUri must lead to an origin that the operator allows (COFFER_PORTAL_URL, COFFER_CORS_ORIGINS or"
        " COFFER_ISSUER), without a fragment."
    )

    def __init__(self) -> None:
        super().__init__("redirect-uri")


class SignOnUnknown(SignOnRefused):
    """The same for a tenant that nobody has, so that slugs can't be found out."""

    code = "SIGN_ON_UNKNOWN"
    message = "This tenant has no such provider."

    def __init__(self) -> None:
        super().__init__("provider")


class SignOnUnavailable(CofferError):
    code = "SIGN_ON_UNAVAILABLE"
    message = "The sign-on provider does not answer as it should; try again shortly."
    retryable = True


class MemberExists(CofferError):
    code = "MEMBER_EXISTS"
    message = "A member with that e-mail exists already."


class MemberRefused(CofferError):
    code = "MEMBER_REFUSED"
    message = "The member's e-mail or password can't be used."


class SamePassword(MemberRefused):
    code = "SAME_PASSWORD"
    message = "The new password is the old one; choose another."


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


class RotationUnknown(CofferError):
    code = "NOT_FOUND"
    message = "There is no rotation of that id."


class RotationUnavailable(CofferError):
    code = "ROTATION_UNAVAILABLE"
    message = "This worker has no right to turn over such keys."


class RecoveryRefused(CofferError):
    code = "RECOVERY_REFUSED"
    message = "The tenant's key file and its database contradict each other."


class RotationRefused(CofferError):
    code = "ROTATION_REFUSED"
    message = "The tenant's keys are not in the states that this rotation left them in."


class IndexDrifts(CofferError):
    code = "INDEX_DRIFTS"
    message = "Tokens of the search index do not agree with the values they stand for, and could not be mended."


class RotationWaits(CofferError):
    """Something still needs the old key; the job comes back by itself."""

    code = "ROTATION_WAITS"
    message = "The rotation waits until nothing needs the old key any more."
    retryable = True

    def __init__(self, seconds: int | None = None) -> None:
        """`seconds`, where it is known how long."""
        super().__init__()
        self.retry_after = seconds


class RotationStopped(CofferError):
    """Something has to be mended by hand; `place` is table.column, `row` an id. The audit log names both."""

    def __init__(self, place: str, row: str = "") -> None:
        super().__init__(f"{self.message} It is in {place}{row and f', row {row}'}.")
        self.place = place
        self.row = row


class ValueDamaged(RotationStopped):
    code = "VALUE_DAMAGED"
    message = "A sealed value does not open, so it can't be sealed anew."


class KeyStillUsed(RotationStopped):
    code = "KEY_STILL_USED"
    message = "A column holds values that an older data key sealed."


class ColumnUnreadable(RotationStopped):
    code = "COLUMN_UNREADABLE"
    message = "A column of bytes can't be read, so nobody knows whether it holds sealed values."


class RewrapRefused(CofferError):
    """The audit log names the keys."""

    code = "REWRAP_REFUSED"
    message = "The key store refused to rewrap some keys; the others are done. The audit log names them."


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


class LedgerBroken(CofferError):
    """Nobody is forgotten by a ledger that isn't whole, or is another one than the database's."""

    code = "ERASURE_LEDGER_BROKEN"
    message = "The ledger of erasures is broken; look at it with `coffer erasures verify`."


class TenantClosed(TenantSuspended):
    code = "TENANT_CLOSED"
    message = "This tenant is closed: its key was destroyed, and nothing of it can be read any more."


class Unrestorable(CofferError):
    """Nothing was changed: a restore is done as a whole, or not at all."""

    code = "UNRESTORABLE"
    message = "The backup can't be restored here."


class BackupsUnavailable(CofferError):
    code = "BACKUPS_UNAVAILABLE"
    message = "No stores of backups are configured, or this worker has no right to make backups."


class OffboardingUnknown(CofferError):
    code = "NOT_FOUND"
    message = "No end of this tenant was approved."


class OffboardingHeld(CofferError):
    """`holds` are the first of them, as members name them."""

    code = "OFFBOARDING_HELD"
    message = "Legal holds keep customers of this tenant."

    def __init__(self, holds: Sequence[str]) -> None:
        super().__init__(f"Legal holds keep customers of this tenant: {', '.join(holds)}. Its members must lift them.")


class OffboardingNotDue(CofferError):
    """It can still be called off; `after` is when no longer."""

    code = "OFFBOARDING_NOT_DUE"
    message = "The tenant may still call off its end."

    def __init__(self, after: datetime) -> None:
        super().__init__(f"The tenant may still call off its end, until {after:%Y-%m-%d %H:%M} UTC.")
