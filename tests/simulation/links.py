"""Links between simulated processes, in memory, whose bytes are on their way for a while.

Bytes arrive in order, as over TCP. A link may be cut, which its two ends notice at times of their
own; it may be held up, so that nothing arrives for longer than its ends wait for; and a process
that dies with its machine leaves ends behind that say nothing any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream

from trio_durable._cluster.address import Address

from .network import Network

if TYPE_CHECKING:
    from .world import Process

PROCESS: ContextVar[Process] = ContextVar("process")
"""The process whose runtime listens or dials."""


class Wires:
    """All that listens, and all links.

    Args:
        network: Carries what is sent.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._listening: dict[str, SimulatedListening] = {}

    async def listen(self, address: Address, *, replace: bool = False) -> SimulatedListening:
        """In the place of the function of this name in `trio_durable._cluster.address`."""
        await anyio.lowlevel.checkpoint()
        listening = SimulatedListening(self, address, PROCESS.get())
        self._listening[str(address)] = listening
        return listening

    async def dial(self, address: Address, tls: object = None) -> ByteStream:
        """Likewise."""
        me = PROCESS.get()
        await anyio.sleep(self._network.delay())
        found = self._listening.get(str(address))
        if found is None or me.is_dead:
            raise ConnectionRefusedError(f"nothing listens at {address}")
        if found.process.is_silent:
            await anyio.sleep_forever()
        mine = SimulatedStream(self._network, me)
        mine.other = theirs = SimulatedStream(self._network, found.process)
        theirs.other = mine
        found.arrive(theirs)
        return mine

    def closed(self, listening: SimulatedListening) -> None:
        """Nothing listens there any more. The end of a machine doesn't show."""
        if not listening.process.is_silent:
            self._listening.pop(str(listening.address), None)


class SimulatedListening:
    """In the place of a `Listening`, and of the socket in it."""

    def __init__(self, wires: Wires, address: Address, process: Process) -> None:
        self.address = address
        self.process = process
        self.is_at_path = True
        self.socket = self
        self._wires = wires
        self._arrived: deque[SimulatedStream] = deque()
        self._changed = anyio.Event()

    def arrive(self, stream: SimulatedStream) -> None:
        """There is a connection."""
        self._arrived.append(stream)
        self._changed.set()

    async def accept(self) -> SimulatedStream:
        await anyio.lowlevel.checkpoint()
        while not self._arrived:
            self._changed = anyio.Event()
            await self._changed.wait()
        return self._arrived.popleft()

    async def close(self) -> None:
        self._wires.closed(self)


class SimulatedStream(ByteStream):
    """One end of a link."""

    other: SimulatedStream

    def __init__(self, network: Network, process: Process) -> None:
        self.process = process
        self._network = network
        self._data = bytearray()
        self._end: type[Exception] | None = None
        self._changed = anyio.Event()
        self._sent_at = 0.0
        process.streams[self] = None

    # --- what its process does -------------------------------------------------------------------

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        while not self._data:
            if self._end is not None:
                raise self._end
            await self._changed.wait()
        data = bytes(self._data[:max_bytes])
        del self._data[:max_bytes]
        return data

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if self._end not in (None, anyio.EndOfStream):
            raise self._end
        sent = bytes(item)
        self._post(lambda: self.other._arrive(sent))

    async def send_eof(self) -> None:
        self._post(lambda: self.other._finish(anyio.EndOfStream))

    async def aclose(self) -> None:
        if self._end is not anyio.ClosedResourceError:
            self._finish(anyio.ClosedResourceError)
            self._post(lambda: self.other._finish(anyio.EndOfStream))
        await anyio.lowlevel.checkpoint()

    # --- what becomes of it ----------------------------------------------------------------------

    def cut(self) -> None:
        """The connection breaks. Bytes that are on their way arrive, or not."""
        for end in (self, self.other):
            at = anyio.current_time() + self._network.delay()
            self._network.post(at, lambda end=end: end._finish(anyio.BrokenResourceError))  # type: ignore[misc]

    def die(self) -> None:
        """Its process has crashed; the other end notices, unless the machine is gone as well."""
        self._post(lambda: self.other._finish(anyio.EndOfStream), is_last=True)
        self._finish(anyio.BrokenResourceError)

    def _post(self, act: Callable[[], object], *, is_last: bool = False) -> None:
        if self.process.is_silent or (self.process.is_dead and not is_last):
            return
        network = self._network
        arrival = anyio.current_time() + network.delay()
        if network.is_slow:
            held = (each.links_held_until for each in (self.process, self.other.process))
            arrival = max(arrival, *held)
        self._sent_at = max(self._sent_at, arrival)
        network.post(self._sent_at, act)

    def _arrive(self, data: bytes) -> None:
        if self._end is None:
            self._data += data
            self._change()

    def _finish(self, end: type[Exception]) -> None:
        if self._end in (None, anyio.EndOfStream):
            self._end = end
            self._change()
        if end is not anyio.EndOfStream:
            self._data.clear()
            self.process.streams.pop(self, None)

    def _change(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
