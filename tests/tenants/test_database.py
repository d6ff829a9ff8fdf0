"""What breaks while nobody uses it costs nobody a request."""

from typing import Any

from sqlalchemy import text

from tenants.database import Database
from tests.house import House


async def test_a_connection_that_broke_in_the_pool_is_made_anew(house: House) -> None:
    database = Database(house.api.settings.platform_database_url, pool_size=1)
    try:
        async with database.connection() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            first = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        driver.terminate()

        async with database.connection() as connection:
            assert (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one() != first
    finally:
        await database.close()
