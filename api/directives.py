"""The labels of the SDL that are the checks: each field bears one rule, each argument and input field one right."""

from collections.abc import Iterable
from typing import Any

import strawberry
from strawberry.schema_directive import Location
from strawberry.types.arguments import StrawberryArgumentAnnotation

from api.meanings import described
from domain.customers import FIELDS
from tenants.access import Level, Permission, Role, Scope, SearchRight, Sensitivity
from tenants.documents import Mask, PersonalField

described(
    Sensitivity,
    "The class of a personal field: how sensitive it is.",
    IDENTITY="Names, and the tenant's own id of a customer.",
    CONTACT="E-mail addresses and phone numbers.",
    LOCATION="Postal addresses.",
    GOVERNMENT_ID="Numbers that a state gave.",
    BIRTH="Date and year of birth.",
    FINANCIAL="Accounts and money; no field of a customer has it yet.",
    HEALTH="Health; no field of a customer has it yet.",
    FREE_TEXT="Notes, in which anything may stand.",
)
described(
    Mask,
    "How a value is shown in part.",
    NAME="Initials of the first and last word: `J. D.`",
    EMAIL="`j***@e***.com`",
    PHONE="The calling code and the last two digits: `+49 ••• •••42`",
    LAST2="The last two letters or digits: `•••••••42`",
    ADDRESS_LINE="`•••`",
    TEXT="`•••`",
    KEEP="The value itself: enough is hidden elsewhere.",
    NOTHING="Null, as for dates.",
)
described(
    Permission,
    "What a member may do.",
    CUSTOMERS_READ="Find, list and read customers, each field at one's level of it.",
    CUSTOMERS_WRITE="Make customers and change them, each field by one's right to write it.",
    CUSTOMERS_STAGE="Set how far the relation with a customer has come.",
    CUSTOMERS_CLASSIFY="Set tags, language, source and region of a customer.",
    CUSTOMERS_ARCHIVE="Take customers out of the lists, and put them back.",
    CUSTOMERS_HAND_OVER="Say which member looks after a customer.",
    CUSTOMERS_IMPORT="Make customers of the rows of a file.",
    CUSTOMERS_REVEAL="See one masked value of a customer whole, limited and on record.",
    CUSTOMERS_ERASE="Erase customers for ever.",
    CUSTOMERS_HOLD="Keep customers from being erased, and let them go again.",
    CUSTOMERS_EXPORT="Get all that is kept about one customer, where one sees each field of it in plain; on record.",
    TAGS_MANAGE="Make tags.",
    MEMBERS_READ="List members, their roles, the tenant's own roles and teams.",
    MEMBERS_MANAGE="Invite, disable and enable members, give them roles, end their sessions, and change teams.",
    ROLES_MANAGE="Make, change and delete roles of the tenant's own.",
    API_KEYS_MANAGE="Make, list, rotate and revoke API keys.",
    SIGN_ON_MANAGE="Set and remove the OpenID providers that vouch for members.",
    TENANT_MANAGE="Change the tenant's settings, and see what it uses.",
    TENANT_CLOSE="Ask for the end of the tenant, approve it, and call it off.",
    KEYS_MANAGE="See the tenant's keys, what is sealed under which, and turn them over.",
    BACKUPS_MANAGE="Back up and restore the tenant, and say how long backups are kept.",
    WEBHOOKS_MANAGE="Say where events are sent and under which roles, and see what was delivered.",
    AUDIT_READ="Read the audit log, and verify its chain.",
    ANALYTICS_READ="Read sums over customers; no field asks for it yet.",
    JOBS_READ="See all jobs of the tenant, and its schedules.",
    JOBS_MANAGE="Pause, resume, cancel and retry all jobs of the tenant, and set its schedules.",
)
described(
    Role,
    "A built-in role; roles add up. `builtInRoles` tells what each grants.",
    OWNER="Everything; the last active one stays.",
    ADMIN="Governs: members, roles, keys, settings, jobs; sees personal values in part, and writes no customer.",
    MANAGER="Leads: sees and writes most in plain, imports, hands over and erases customers.",
    AGENT="Works with customers: names in plain, contact in part; writes names, contact, stage and notes.",
    ANALYST="Sees city, country and year of birth, and nobody's name.",
    AUDITOR="Reads the audit log, members and jobs; sees personal values in part, and writes nothing.",
    INTEGRATION="Of a machine that brings data: writes nearly all, sees no personal value, finds by the external id.",
)
described(
    Level,
    "What one gets of a personal field; with several roles the most generous counts.",
    HIDDEN="Null.",
    MASKED="What the field's mask leaves of it.",
    PLAIN="The value.",
)
described(
    Scope,
    "For which customers a role grants what it does, by their owner.",
    name="RoleScope",
    ALL="All customers, those without an owner too.",
    TEAM="Those that the member owns, or somebody who is in a team with the member.",
    OWN="Those that the member owns.",
)
described(
    SearchRight,
    "By what customers may be found; finding by a value confirms it.",
    IDENTITY="By the beginning of a name.",
    CONTACT="By e-mail and phone.",
    GOVERNMENT_ID="By a number that a state gave.",
    EXTERNAL_ID="By the tenant's own id of a customer, and the right to set it where one may write it.",
)


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION],
    name="personal",
    description="A personal value: hidden, masked or plain by the viewer's level for its class.",
)
class Personal:
    class_: Sensitivity = strawberry.directive_field(name="class")
    mask: Mask


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION], name="requires", description="Only for viewers with this permission."
)
class Requires:
    permission: Permission


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION], name="public", description="For everybody, and the reason why."
)
class Public:
    reason: str


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION],
    name="revealed",
    description="Personal values whole, by a decision of their own beside this permission; limited and on record.",
)
class Revealed:
    permission: Permission


@strawberry.schema_directive(
    locations=[Location.ARGUMENT_DEFINITION, Location.INPUT_FIELD_DEFINITION],
    name="searches",
    description="Finding by this needs the right to search by the field, or for a clear field to read it.",
)
class Searches:
    field: str


@strawberry.schema_directive(
    locations=[Location.ARGUMENT_DEFINITION, Location.INPUT_FIELD_DEFINITION],
    name="writes",
    description="Giving this, null too, needs the right to write the field.",
)
class Writes:
    field: str


@strawberry.schema_directive(
    locations=[Location.ARGUMENT_DEFINITION, Location.INPUT_FIELD_DEFINITION],
    name="input",
    description="Needs no right of its own, and why.",
)
class Input:
    why: str


Rule = Personal | Requires | Public | Revealed
InputRule = Searches | Writes | Input
RULES = (Personal, Requires, Public, Revealed)
INPUT_RULES = (Searches, Writes, Input)


def public(reason: str, **options: Any) -> Any:
    return strawberry.field(directives=[Public(reason=reason)], **options)


def requires(permission: Permission, **options: Any) -> Any:
    return strawberry.field(directives=[Requires(permission=permission)], **options)


def personal(column: str, field: PersonalField, attribute: str = "", mask: Mask | None = None) -> Any:
    """A leaf of a sealed document: the guard opens it. `attribute` is another reading of the same field."""
    return strawberry.field(
        directives=[Personal(class_=field.sensitivity, mask=mask or field.mask)],
        metadata={"column": column, "attribute": attribute or field.shown_as, "field": field},
    )


def revealed(permission: Permission, **options: Any) -> Any:
    """A leaf that the guard opens for one answer; see `domain.reveals` and `domain.access_requests`, which decide and
    record first.
    """
    return strawberry.field(directives=[Revealed(permission=permission)], **options)


def searches(field: str, **options: Any) -> Any:
    return strawberry.field(directives=[Searches(field=field)], **options)


def writes(field: str, **options: Any) -> Any:
    return strawberry.field(directives=[Writes(field=field)], **options)


def input_(why: str, **options: Any) -> Any:
    return strawberry.field(directives=[Input(why=why)], **options)


def argument(rule: InputRule, description: str | None = None) -> StrawberryArgumentAnnotation:
    return strawberry.argument(description=description, directives=[rule])


def one_of(kinds: Iterable[type], directives: Iterable[object]) -> Any | None:
    """The only directive of these kinds, or None where there is none or more than one."""
    found = [each for each in directives if isinstance(each, tuple(kinds))]
    return found[0] if len(found) == 1 else None


def customer_field(name: str) -> PersonalField | None:
    """The personal field that `Customer.givenName` speaks of, by its name in the SDL."""
    return _BY_LABEL.get(name)


def label(field: str) -> str:
    first, *rest = field.split("_")
    return "Customer." + first + "".join(word.capitalize() for word in rest)


_BY_LABEL = {label(name): field for name, field in FIELDS.items()}
