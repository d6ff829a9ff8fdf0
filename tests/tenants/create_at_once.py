"""A process of its own that asks many times at once for one tenant; says "ready", waits for a line, prints the ids."""

import asyncio
import json
import sys
from dataclasses import asdict, dataclass

from crypto.transit import TransitKeys
from settings import AppRole, Settings
from tenants.database import Database
from tenants.provisioning import Provisioning


@dataclass(frozen=True, slots=True)
class Order:
    slug: str
    times: int
    platform_url: str
    app_url: str
    vault: str
    maker: AppRole
    opener: AppRole

    def dump(self) -> str:
        return json.dumps(asdict(self))


def order(settings: Settings, slug: str, times: int) -> Order:
    assert settings.provisioner_role is not None
    return Order(
        slug,
        times,
        settings.platform_database_url,
        settings.database_url,
        settings.vault_address,
        settings.provisioner_role,
        settings.api_role,
    )


async def main(told: Order) -> None:
    platform, app = Database(told.platform_url, pool_size=5), Database(told.app_url, pool_size=5)
    maker = TransitKeys(told.vault, told.maker.role_id, told.maker.secret_id)
    opener = TransitKeys(told.vault, told.opener.role_id, told.opener.secret_id)
    provisioning = Provisioning(platform, app, maker, opener)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    made = await asyncio.gather(*(provisioning.provision(told.slug, "At once") for _ in range(told.times)))
    print(json.dumps([[str(tenant.id), tenant.status] for tenant in made]))
    for closing in (platform, app, maker, opener):
        await closing.close()


if __name__ == "__main__":
    received = json.loads(sys.argv[1])
    received |= {name: AppRole(**received[name]) for name in ("maker", "opener")}
    asyncio.run(main(Order(**received)))
