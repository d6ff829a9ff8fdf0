"""The job that brings a new tenant to life; it has no unit, because there are no keys yet."""

import os
import socket

from jobs.handling import Handler, Handling, Run
from tenants import tenants
from tenants.database import Database
from tenants.errors import TenantNotReady
from tenants.jobs import NoArguments
from tenants.jobs.ledger import Ledger
from tenants.provisioning import PROVISION, Provisioning
from tenants.tenants import Tenant
from tenants.units import Units


def provision_by(provisioning: Provisioning | None) -> Handler:
    """None: this worker has no right to make keys, and takes no such job."""

    async def provision_tenant(run: Run[NoArguments]) -> None:
        if provisioning is None:
            raise TenantNotReady
        await provisioning.work(run.tenant)

    return provision_tenant


async def provision_here(
    provisioning: Provisioning, tenant: Tenant, units: Units, app: Database, platform: Database
) -> Tenant:
    """Do the tenant's job in this process, so that whoever created it need not wait for a worker.

    Where the job can't be taken or did not end well, the work is done without it, and raises what it raises.
    """
    if tenant.status != "PENDING":
        return tenant
    if job := await provisioning.find_job(tenant.id):
        ledger = Ledger(app, platform, f"{socket.gethostname()}:{os.getpid()}")
        await Handling(units, ledger, {PROVISION: provision_by(provisioning)}).handle(tenant.id, job)
    made = await tenants.get(platform, tenant.slug)
    return made if made.status != "PENDING" else await provisioning.provision(tenant.slug, tenant.name)
