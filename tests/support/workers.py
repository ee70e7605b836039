"""An object whose turns take as long as a test wants."""

from __future__ import annotations

import anyio

from trio_durable import DurableObject, handler


class Worker(DurableObject):
    done: int = 0

    @handler
    async def work(self, seconds: float) -> int:
        await anyio.sleep(seconds)
        self.done += 1
        return self.done

    @handler
    def work_quickly(self) -> int:
        self.done += 1
        return self.done

    @handler(readonly=True)
    def read(self) -> int:
        return self.done
