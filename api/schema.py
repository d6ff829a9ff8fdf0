"""The whole schema, guarded: `GuardedSchema` refuses to be built while a field or an input has no rule."""

from typing import Annotated, Any, cast

import strawberry
from graphql import GraphQLSchema
from strawberry import Info
from strawberry.schema.config import StrawberryConfig
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.field import StrawberryField

from api import guard
from api.access_requests import AccessRequestMutations
from api.api_keys import ApiKey, ApiKeyMutations, ApiKeyQueries, keys_by_id
from api.audit import AuditEntry, AuditQueries
from api.backups import Backup, BackupMutations, BackupQueries, backups_by_id
from api.customer_changes import CustomerMutations
from api.customers import Customer, CustomerQueries
from api.directives import INPUT_RULES, RULES, Input, argument, one_of, public
from api.erasures import Erasure, ErasureMutations, ErasureQueries, erasures_by_id
from api.events import EventQueries
from api.explain import ExplainQueries
from api.hand_overs import HandOverMutations
from api.holds import HoldMutations, HoldQueries
from api.imports import ImportMutations, ImportQueries
from api.invitations import InvitationMutations
from api.jobs import Job, JobMutations, JobQueries
from api.member_acts import MemberActMutations, MemberListQueries
from api.members import Member, MemberQueries, members_of
from api.offboardings import OffboardingMutations, OffboardingQueries
from api.operation import Operation
from api.paging import Node
from api.passwords import PasswordMutations
from api.restores import RestoreMutations
from api.reveals import RevealMutations
from api.roles import OwnRole, RoleMutations, RoleQueries, roles_by_id
from api.rotations import DataKey, KeyMutations, KeyQueries, KeyRotation, data_keys_by_id, rotations_by_id
from api.scalars import harden
from api.schedules import ScheduleMutations, ScheduleQueries
from api.second_factors import SecondFactorMutations
from api.sessions import Session, SessionMutations, SessionQueries
from api.sign_in import SignInMutations
from api.sign_on import SignOnMutations, SignOnProvider, SignOnQueries, providers_by_id
from api.sign_up import SignUpMutations
from api.subscriptions import Subscription
from api.tags import Tag, TagMutations, TagQueries
from api.teams import Team, TeamMutations, TeamQueries
from api.tenant import TenantMutations, TenantQueries
from api.usage import UsageQueries
from api.webhook_deliveries import (
    WebhookDelivery,
    WebhookDeliveryMutations,
    WebhookDeliveryQueries,
    deliveries_by_id,
)
from api.webhook_endpoints import WebhookEndpoint, endpoints_by_id
from api.webhooks import WebhookMutations, WebhookQueries
from domain import audits, customers, jobs, sessions, tags, teams
from domain.errors import BadInput
from tenants.access import Permission
from tenants.errors import Unauthenticated
from tenants.ids import any_local_id

_MOST_NODES = 100
_IDS = argument(Input(why="an id opens nothing by itself"), "Global, as every `id` of the answers.")


@strawberry.type
class Query(
    ApiKeyQueries,
    AuditQueries,
    BackupQueries,
    CustomerQueries,
    EventQueries,
    ErasureQueries,
    HoldQueries,
    OffboardingQueries,
    TagQueries,
    ImportQueries,
    JobQueries,
    MemberQueries,
    MemberListQueries,
    RoleQueries,
    ExplainQueries,
    SignOnQueries,
    ScheduleQueries,
    KeyQueries,
    SessionQueries,
    TeamQueries,
    TenantQueries,
    UsageQueries,
    WebhookQueries,
    WebhookDeliveryQueries,
):
    @public("each type's fields have rules of their own", description="An object by its global id, or null.")
    async def node(self, info: Info[Operation], id: Annotated[strawberry.ID, _IDS]) -> Node | None:
        return (await _nodes(info.context, [id]))[0]

    @public("each type's fields have rules of their own", description="Objects in the order of up to 100 ids.")
    async def nodes(self, info: Info[Operation], ids: Annotated[list[strawberry.ID], _IDS]) -> list[Node | None]:
        if len(ids) > _MOST_NODES:
            raise BadInput(f"`ids` has at most {_MOST_NODES} ids.")
        return await _nodes(info.context, ids)


@strawberry.type
class Mutation(
    SignInMutations,
    PasswordMutations,
    SecondFactorMutations,
    SessionMutations,
    InvitationMutations,
    MemberActMutations,
    RoleMutations,
    CustomerMutations,
    TagMutations,
    ImportMutations,
    JobMutations,
    ScheduleMutations,
    KeyMutations,
    BackupMutations,
    ApiKeyMutations,
    RestoreMutations,
    RevealMutations,
    AccessRequestMutations,
    ErasureMutations,
    HoldMutations,
    OffboardingMutations,
    HandOverMutations,
    TeamMutations,
    TenantMutations,
    SignUpMutations,
    SignOnMutations,
    WebhookMutations,
    WebhookDeliveryMutations,
):
    pass


async def _nodes(operation: Operation, ids: list[strawberry.ID]) -> list[Node | None]:
    if operation.viewer is None:
        raise Unauthenticated
    wanted: dict[str, list[Any]] = {}
    located = [any_local_id(text) for text in ids]
    for kind, local in filter(None, located):
        wanted.setdefault(kind, []).append(local)
    found = {kind: await _LOADS[kind](operation, local) for kind, local in wanted.items() if kind in _LOADS}
    return [cast(Node | None, found.get(at[0], {}).get(at[1])) if at else None for at in located]


async def _customers(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    if not operation.may(Permission.CUSTOMERS_READ):
        return {}
    views = await customers.get_many(operation.unit, ids, operation.columns("Customer"))
    return dict(zip(ids, views, strict=True))


async def _tags(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    if not operation.may(Permission.CUSTOMERS_READ):
        return {}
    return dict(zip(ids, await tags.get_many(operation.unit, ids), strict=True))


async def _members(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    return dict(zip(ids, await members_of(operation).load_many(ids), strict=True))


async def _jobs(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    return dict(zip(ids, await jobs.get_many(operation.unit, ids), strict=True))


async def _audit_entries(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    if not operation.may(Permission.AUDIT_READ):
        return {}
    return dict(zip(ids, await audits.get_many(operation.unit, ids), strict=True))


async def _sessions(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    return dict(await sessions.get_many(operation.unit, ids))


async def _teams(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    return dict(await teams.get_many(operation.unit, ids)) if operation.may(Permission.MEMBERS_READ) else {}


_LOADS = {
    "Customer": _customers,
    "Tag": _tags,
    "Member": _members,
    "Job": _jobs,
    "AuditEntry": _audit_entries,
    "Session": _sessions,
    "Team": _teams,
    "OwnRole": roles_by_id,
    "SignOnProvider": providers_by_id,
    "ApiKey": keys_by_id,
    "Backup": backups_by_id,
    "DataKey": data_keys_by_id,
    "KeyRotation": rotations_by_id,
    "WebhookEndpoint": endpoints_by_id,
    "WebhookDelivery": deliveries_by_id,
    "Erasure": erasures_by_id,
}


class GuardedSchema(strawberry.Schema):
    def get_fields(self, type_definition: StrawberryObjectDefinition) -> list[StrawberryField]:
        """Teaches at the place itself; `guard.install` then checks the finished schema once more."""
        kinds = INPUT_RULES if type_definition.is_input else RULES
        for field in type_definition.fields:
            if one_of(kinds, field.directives) is None:
                rules = ", ".join(f"@{kind.__name__.lower()}" for kind in kinds)
                raise TypeError(f"{type_definition.name}.{field.python_name} has no rule; give it one of {rules}")
        return super().get_fields(type_definition)


def build(
    query: type = Query, mutation: type | None = Mutation, subscription: type | None = Subscription
) -> tuple[GraphQLSchema, str]:
    """The executable schema behind its guard, and its SDL. Raises TypeError naming what has no rule."""
    config = StrawberryConfig(auto_camel_case=True)
    built = GuardedSchema(
        query=query,
        mutation=mutation,
        subscription=subscription,
        types=[
            *(Customer, Tag, Member, Job, AuditEntry, Erasure, Team, OwnRole, SignOnProvider, ApiKey, Session),
            *(WebhookEndpoint, WebhookDelivery),
            *(DataKey, KeyRotation),
            *(Backup,),
        ],
        config=config,
    )
    schema = built._schema
    guard.install(schema)
    harden(schema)  # before it is printed, as it tells the forms of dates
    return schema, built.as_str() + "\n"
