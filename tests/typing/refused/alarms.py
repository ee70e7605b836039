"""Alarms that are wrongly defined, set or looked at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from trio_durable import Alarm, Clock, DurableObject, DurableRuntime, Retry, alarm, handler


def use(*values: object) -> None:
    """Stands for whatever goes on with the values."""


class Reminder(DurableObject):
    rung: int = 0

    @alarm
    def ring(self) -> None:
        self.rung = "1"  # refused

    @alarm()
    async def ring_slowly(self) -> int:
        return 1

    @alarm
    def look(self) -> None:
        self.ctx.alarm.name.upper()  # refused
        due = self.ctx.alarm
        if due is not None:
            due.name = "other"  # refused
            due.payload.upper()  # refused
            text: str = due.payload  # refused
            number: int = due.payload_as(str)  # refused
            moment: float = due.due_at  # refused
            due.payload_as()  # refused
            use(due.late)  # refused
            use(text, number, moment)

    @handler
    async def wrong_calls(self) -> None:
        self.ring(1)  # refused
        self.ring_slowly()  # refused
        result: str = await self.ring_slowly()  # refused
        use(result)

    @handler
    def wrong_times(self) -> None:
        self.ctx.schedule_alarm("ring", after="x")  # refused
        self.ctx.schedule_alarm("ring", at="2030-01-01")  # refused
        self.ctx.schedule_alarm("ring", at=5)  # refused
        self.ctx.schedule_alarm("ring", at=timedelta(seconds=5))  # refused
        self.ctx.schedule_alarm("ring", after=datetime.now(UTC))  # refused
        self.ctx.schedule_alarm("ring", 5)  # refused
        self.ctx.schedule_alarm(after=5)  # refused
        self.ctx.schedule_alarm(5, after=5)  # refused
        self.ctx.schedule_alarm(self.ring, after=5)  # refused
        self.ctx.schedule_alarm("ring", in_=5)  # refused

    @handler
    async def wrong_changes(self) -> None:
        await self.ctx.schedule_alarm("ring", after=5)  # refused
        self.ctx.cancel_alarm()  # refused
        self.ctx.cancel_alarm(5)  # refused
        self.ctx.cancel_all_alarms("ring")  # refused
        self.ctx.alarm = None  # refused


class WrongAlarms(DurableObject):
    @alarm  # refused
    def more(self, payload: object) -> None: ...

    @alarm  # refused
    async def more_slowly(self, payload: object) -> None: ...

    @alarm(retry=Retry())  # refused
    def more_often(self, payload: object) -> None: ...

    @alarm(retry=3)  # refused
    def thrice(self) -> None: ...

    @alarm(retry=None)  # refused
    def never(self) -> None: ...

    @alarm(attempts=3)  # refused
    def again(self) -> None: ...

    @alarm("later")  # refused
    def named(self) -> None: ...


class WrongCatchAll(DurableObject):
    def handle_alarm(self) -> None: ...  # refused


class WrongKind(DurableObject):
    def handle_alarm(self, alarm: str) -> None: ...  # refused


class WrongResult(DurableObject):
    def handle_alarm(self, alarm: Alarm) -> int:  # refused
        return 1


def wrong_retries() -> None:
    Retry(5)
    Retry(initial="2")  # refused
    Retry(factor="2")  # refused
    Retry(factor=timedelta(seconds=2))  # refused
    Retry(maximum=None)  # refused
    Retry(attempts="3")  # refused
    Retry(attempts=1.5)  # refused
    Retry(crashes="3")  # refused
    Retry(times=3)  # refused
    Retry().attempts = 3  # refused


async def from_outside(runtime: DurableRuntime) -> None:
    await runtime.schedule_alarm(Reminder, "r", "ring", after="x")  # refused
    await runtime.schedule_alarm(Reminder, "r", "ring", 5)  # refused
    await runtime.schedule_alarm(Reminder, "r", after=5)  # refused
    await runtime.schedule_alarm(Reminder, 7, "ring", after=5)  # refused
    await runtime.schedule_alarm(int, "r", "ring", after=5)  # refused
    await runtime.schedule_alarm(Reminder, "r", name="ring", after=5)  # refused
    runtime.schedule_alarm(Reminder, "r", "ring", after=5)  # refused
    runtime.cancel_alarm(Reminder, "r", "ring")  # refused
    await runtime.cancel_alarm(Reminder, "r")  # refused
    await runtime.cancel_all_alarms(Reminder)  # refused
    alarms: list[str] = await runtime.list_alarms(Reminder, "r")  # refused
    await runtime.list_dead_letters(Reminder, "r")  # refused
    await runtime.list_dead_letters(Reminder, after="r")  # refused
    done: str = await runtime.retry_alarm(Reminder, "r", "ring")  # refused
    use(alarms, done)


class WrongClock(Clock):
    @property
    def may_jump(self) -> bool:
        return False

    def now(self) -> float:  # refused
        return 0.5


def wrong_runtimes() -> None:
    DurableRuntime("x.db", clock=5)  # refused
    DurableRuntime("x.db", claim_ttl="60")  # refused
    DurableRuntime("x.db", polling_interval=None)  # refused


class WrongSchedules(DurableObject):
    @alarm(cron=9)  # refused
    def by_number(self) -> None: ...

    @alarm(cron="0 9 * * *", every=5)  # refused
    def both(self) -> None: ...

    @alarm(every=5, zone="UTC")  # refused
    def in_a_zone(self) -> None: ...

    @alarm(every=5, missed="never")  # refused
    def missed(self) -> None: ...

    @alarm(autostart=True)  # refused
    def without(self) -> None: ...

    @alarm(every="5")  # refused
    def by_text(self) -> None: ...
