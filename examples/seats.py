from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI
from trio_durable import DurableObject, DurableRuntime, alarm, handler


class Seat(DurableObject):
    holder: str | None = None  # typed state, saved after every change

    @handler
    def hold(self, user: str) -> bool:  # one call at a time per seat: no locks, no races
        if self.holder is None:
            self.holder = user
            self.ctx.schedule_alarm("release", after=timedelta(minutes=10))  # same transaction
        return self.holder == user

    @alarm
    def release(self) -> None:  # fires even if the process was down when it was due
        self.holder = None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with DurableRuntime("seats.db"):
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/seats/{seat}/hold")
async def hold(seat: str, user: str) -> bool:
    return await Seat.hold(seat, user)  # on disk when this returns
