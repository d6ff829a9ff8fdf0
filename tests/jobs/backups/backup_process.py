"""A process that writes or repairs a backup until it is done or killed: ``ROOT write|repair``."""

import asyncio
import sys
from pathlib import Path

from tests.jobs.backups.yards import WIDE, Yard, long_records


async def main(root: Path, act: str) -> None:
    yard, records = Yard(root), long_records()
    print("begun", flush=True)
    if act == "write":
        await yard.write(records, shape=WIDE)
    else:
        await yard.repair()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
