"""Pages of all tenants, the first ones of many tenants in one job of the reader."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from .._eventloop.runner import Runner
from ..storage import PartialFault, Reader
from .failing_tenants import FailingTenants

T = TypeVar("T")

PAGE = 256
"""Entries of a page, and tenants that are read in one job."""


async def each_page(
    runner: Runner,
    reader: Reader,
    read: Callable[[str, T | None, int], list[T]],
    take: Callable[[str, list[T]], None],
    failing: FailingTenants,
    only: set[str] | None = None,
) -> set[str]:
    """Read pages of all tenants, or of some.

    Args:
        runner: The reader's.
        reader: The side of the storage that lists the tenants.
        read: Reads a page of a tenant: after an entry, with so many entries at most.
        take: Takes over a page of a tenant.
        failing: The tenants that can't be read, which are left out for a while.
        only: Only these tenants.

    Returns:
        The tenants that were left out, or could not be read to the end.

    Raises:
        StorageFault: Reading failed, of all tenants.
    """
    left_out: set[str] = set()
    tenants = [""] if only is None else sorted(only)
    while tenants:
        ready = [tenant for tenant in tenants if not failing.must_wait(tenant)]
        left_out.update(tenants)
        first_pages = await runner.run(partial(_first_pages, read, ready))
        for tenant, first_page in zip(ready, first_pages, strict=True):
            page = first_page
            while not isinstance(page, PartialFault):
                take(tenant, page)
                if len(page) < PAGE:
                    left_out.remove(tenant)
                    break
                page = await runner.run(partial(_page, read, tenant, page[-1]))
            else:
                failing.failed(tenant, page)
        if only is not None:
            break
        tenants = await runner.run(partial(reader.list_tenants, tenants[-1], PAGE))
    return left_out


def _first_pages(
    read: Callable[[str, T | None, int], list[T]], tenants: list[str]
) -> list[list[T] | PartialFault]:
    return [_page(read, tenant, None) for tenant in tenants]


def _page(
    read: Callable[[str, T | None, int], list[T]], tenant: str, after: T | None
) -> list[T] | PartialFault:
    try:
        return read(tenant, after, PAGE)
    except PartialFault as fault:
        return fault
