"""The library with one guarantee of the runtime broken, to see that the tests here notice.

    PYTHONPATH=tests python -m hold.mutants           all mutants
    PYTHONPATH=tests python -m hold.mutants NAME …    some of them

See `exactness.mutants`, which makes them and runs the tests.
"""

from __future__ import annotations

import sys

from exactness.mutants import TESTS, Mutant, main

_TESTS = (*TESTS, "-q", "-x", "-p", "no:xdist", "--timeout", "60", "--timeout-method", "thread")
CHECKS: dict[str, tuple[str, ...]] = {
    "raised": (*_TESTS, "hold/test_raised.py"),
    "workers": (*_TESTS, "hold/test_workers.py"),
    "entering": (
        *_TESTS,
        "hold/test_hosts.py",
        "-k",
        "entered or never_left or cleanup or refused",
    ),
    "bounded": (*_TESTS, "hold/test_hosts.py", "-k", "bounded and trio"),
    "failing": (*_TESTS, "hold/test_hosts.py", "-k", "(thread_breaks or runtime_fails) and trio"),
    "forked": (*_TESTS, "hold/test_hosts.py", "-k", "forked"),
    "gate": (*_TESTS, "hold/test_gate.py"),
    "one turn": (*_TESTS, "hold/test_one_turn.py"),
    "slices": (*_TESTS, "hold/test_slices.py"),
    "garbage": (*_TESTS, "hold/test_garbage.py"),
    "checkpoints": (*_TESTS, "hold/test_checkpoints.py"),
    "loop": (*_TESTS, "eventloop/test_loop.py", "-k", "signal"),
    "tasks": (*_TESTS, "eventloop/test_tasks.py"),
    "budget": (*_TESTS, "eventloop/test_budget.py"),
    "crashes": (*_TESTS, "scheduler/test_conformance.py", "-k", "not SQLite and trio"),
    "counts": (*_TESTS, "storage/test_conformance.py", "-k", "MemoryStorage and rash"),
    "injection": (
        *("tests.injection", "--every", "3", "--backend", "trio", "--action", "exception"),
        *("--situation", "queued", "--situation", "first"),
    ),
    "injection of entering": (
        *("tests.injection", "--backend", "trio", "--action", "exception"),
        *("--situation", "entering"),
    ),
    "injection of alarms": (
        *("tests.injection", "--every", "3", "--backend", "trio", "--action", "exception"),
        *("--situation", "alarm"),
    ),
}

MUTANTS = [
    Mutant(
        "renewed_before_yielding",
        "the budget begins before the other tasks have run",
        "budget",
        "_eventloop/budget.py",
        """        self._yielding += 1
        try:
            await checkpoint()
        finally:
            yielding = self._yielding
            self._yielding = yielding - 1
        self._until = perf_counter() + min(EACH, ALL / yielding)
""",
        """        self._yielding += 1
        self._until = perf_counter() + min(EACH, ALL / self._yielding)
        try:
            await checkpoint()
        finally:
            self._yielding -= 1
""",
    ),
    Mutant(
        "undivided",
        "each caller has a budget of its own",
        "budget",
        "_eventloop/budget.py",
        "min(EACH, ALL / yielding)",
        "EACH",
    ),
    Mutant(
        "never_spent",
        "calls that wait for nothing are cancel points alone",
        "budget",
        "_eventloop/budget.py",
        "if perf_counter() < self._until:",
        "if True:",
    ),
    Mutant(
        "not_cancelled",
        "a call within the budget is no cancel point",
        "budget",
        "_eventloop/budget.py",
        "            await checkpoint_if_cancelled()\n",
        "",
    ),
    Mutant(
        "budget_of_a_runtime",
        "each runtime of a loop has a budget",
        "budget",
        "_eventloop/budget.py",
        "        return _budget.get()",
        "        raise LookupError",
    ),
    Mutant(
        "budget_in_virtual_time",
        "in virtual time a call may be no checkpoint",
        "budget",
        "_eventloop/trio.py",
        "checkpoint if self.is_virtual else current_budget().spend",
        "current_budget().spend",
    ),
    Mutant(
        "foreign_cancel_is_ours",
        "a cancellation in a handler is taken for the runtime's end",
        "raised",
        "_activations/opening.py",
        "if self._services.is_ending():",
        "if True:",
    ),
    Mutant(
        "base_exception_ends_task",
        "an exception outside of Exception leaves an async def turn",
        "raised",
        "_activations/turns.py",
        "    except BaseException as error:  # noqa: BLE001  # handlers may raise anything\n",
        "    except Exception as error:\n",
    ),
    Mutant(
        "note_unguarded",
        "a note is added to exceptions that refuse it",
        "raised",
        "_activations/raised.py",
        "except Exception:  # noqa: BLE001, S110  # frozen, or",
        "except KeyError:  # frozen, or",
    ),
    Mutant(
        "errors_of_a_group_lost",
        "a group with a cancellation counts as one",
        "raised",
        "_activations/raised.py",
        "return make() if others is None else others",
        "return make()",
    ),
    Mutant(
        "worker_kept",
        "a task goes on after a foreign cancellation, or with a scope left open",
        "workers",
        "_activations/worker.py",
        "if self._resistance is not None or loop.cancel_state(task) != clean:",
        "if False:",
    ),
    Mutant(
        "envelope_kept",
        "a worker that waits keeps its last request",
        "workers",
        "_activations/worker.py",
        "                    envelope = None\n",
        "                    kept = envelope\n",
    ),
    Mutant(
        "task_kept",
        "a waiter that has ended keeps its task",
        "workers",
        "_eventloop/trio.py",
        "self._task = None  # `Deadlines` may",
        "pass  # `Deadlines` may",
    ),
    Mutant(
        "enter_without_clean_up",
        "what is open when entering is cancelled stays open",
        "entering",
        "_runtime/host.py",
        "            self.stop(now=True)\n            await self.wait()\n            raise\n",
        "            raise\n",
    ),
    Mutant(
        "leaving_unbounded",
        "leaving waits for the storage as long as that takes",
        "bounded",
        "_runtime/host.py",
        "until = -math.inf if self.has_forked else self._closes_until",
        "until = math.inf",
    ),
    Mutant(
        "death_of_a_thread_unseen",
        "what a job raises in its thread is dropped",
        "failing",
        "_eventloop/runner.py",
        "self._loop.call_soon_threadsafe(self.failed, error)",
        "pass",
    ),
    Mutant(
        "reports_leave_tasks",
        "an exception within the report of another one leaves a task",
        "tasks",
        "_eventloop/tasks.py",
        "            self._failed(another)\n",
        "            raise\n",
    ),
    Mutant(
        "commits_of_a_failure_left",
        "calls wait for commits of a runtime whose failure was cut off",
        "failing",
        "_runtime/open_runtime.py",
        "            self._abandon_commits()\n            return\n",
        "            return\n",
    ),
    Mutant(
        "failed_runtime_unknown",
        "a runtime that has failed isn't the current one any more",
        "failing",
        "_runtime/open_runtime.py",
        "if self.services.failure is None:  # else calls",
        "if True:  # else calls",
    ),
    Mutant(
        "fork_not_marked",
        "a forked process has an open runtime",
        "forked",
        "_runtime/forks.py",
        "        opened.forked()\n",
        "        pass\n",
    ),
    Mutant(
        "gate_for_changes_only",
        "calls of read-only async def handlers don't wait",
        "gate",
        "_activations/calls.py",
        "and (handler.is_async or not handler.readonly)",
        "and not handler.readonly",
    ),
    Mutant(
        "gate_within_turns_only",
        "a task that a turn has left doesn't wait",
        "gate",
        "_activations/wait_graph.py",
        "        ticket = self.last_ticket\n",
        "        ticket = None\n",
    ),
    Mutant(
        "gate_not_for_administration",
        "administration from a turn doesn't wait",
        "gate",
        "_activations/output_gate.py",
        "return timeout if origin is None else await self.passed(origin, key, name, timeout)",
        "return timeout",
    ),
    Mutant(
        "gate_not_for_tasks_of_def_turns",
        "a task that a def handler has started doesn't wait",
        "gate",
        "_activations/turns.py",
        "None if handler.readonly else current_turn.set(state)",
        "None",
    ),
    Mutant(
        "gate_for_reads",
        "calls of read-only def handlers wait, too",
        "gate",
        "_activations/calls.py",
        "and (handler.is_async or not handler.readonly)",
        "and True",
    ),
    Mutant(
        "open_during_def",
        "an object is open while a def turn of it runs",
        "one turn",
        "_activations/calls.py",
        "activation.mailbox is not None or state.turn is not None or state.instance is None",
        "activation.mailbox is not None or state.instance is None",
    ),
    Mutant(
        "no_headroom",
        "a task is resumed at the limit on recursion",
        "one turn",
        "_eventloop/asyncio.py",
        "            check_headroom(_LEVELS)\n",
        "",
    ),
    Mutant(
        "no_headroom_on_trio",
        "a task of trio is resumed at the limit on recursion",
        "one turn",
        "_eventloop/trio.py",
        "            check_headroom(_LEVELS)\n",
        "",
    ),
    Mutant(
        "no_slices",
        "a mailbox is served until it is empty",
        "slices",
        "_activations/pump.py",
        "return self.turns >= TURNS or (self.turns > 0 and self.is_late)",
        "return False",
    ),
    Mutant(
        "slices_by_number_only",
        "a slice of long turns has as many as one of short ones",
        "slices",
        "_activations/pump.py",
        "return self.turns >= TURNS or (self.turns > 0 and self.is_late)",
        "return self.turns >= TURNS",
    ),
    Mutant(
        "error_kept",
        "a waiter keeps the error that it has raised",
        "garbage",
        "_eventloop/loop.py",
        "error, self.error, self.value = self.error, None, None",
        "error = self.error",
    ),
    Mutant(
        "error_in_a_cycle",
        "a frame refers to the error that leaves it",
        "garbage",
        "_eventloop/loop.py",
        "            del error  # or the error's traceback, this",
        "            pass  # the error's traceback, this",
    ),
    Mutant(
        "no_checkpoint",
        "a reply that isn't held back is no checkpoint",
        "checkpoints",
        "_activations/calls.py",
        "                    await loop.checkpoint()\n",
        "                    pass\n",
    ),
    Mutant(
        "worker_wakes_once",
        "a worker parks although it was woken",
        "injection",
        "_activations/worker.py",
        "                elif not self._is_woken:\n                    await self._park()\n",
        "                else:\n                    self._is_woken = False\n"
        "                    await self._park()\n",
    ),
    Mutant(
        "pump_forgets",
        "the pump drops an object whose service was cut off",
        "injection",
        "_activations/pump.py",
        "if self._guarded(served.serve, share) is not False:",
        "if self._guarded(served.serve, share):",
    ),
    Mutant(
        "callback_once",
        "a callback of the loop that was cut off isn't repeated",
        "injection of entering",
        "_eventloop/loop.py",
        "                tried = first\n",
        "                del arrived[0]\n",
    ),
    Mutant(
        "callback_lost",
        "a callback leaves the queue before the loop's guard is resumed",
        "loop",
        "_eventloop/loop.py",
        "            _report(loop, error)\n",
        "            _report(loop, error)\n            arrived.clear()\n",
    ),
    Mutant(
        "guard_ends",
        "an exception within the report of another one ends the loop's guard",
        "loop",
        "_eventloop/loop.py",
        "            _report(loop, error)\n",
        "            loop.failed(error)\n",
    ),
    Mutant(
        "claims_kept",
        "a delivery that was cut off before it was handed over stays in flight",
        "injection of alarms",
        "scheduler/_delivery/deliverer.py",
        "            if flight.is_handed_over:\n                continue\n",
        "            continue\n",
    ),
    Mutant(
        "innocent_alarm_counted",
        "a crash is counted for alarms that weren't marked",
        "counts",
        "storage/_memory_alarms.py",
        "self.crashes + (self.marked == self.claim)",
        "self.crashes + 1",
    ),
    Mutant(
        "innocent_alarms_die",
        "the same, as a scheduler sees it",
        "crashes",
        "storage/_memory_alarms.py",
        "self.crashes + (self.marked == self.claim)",
        "self.crashes + 1",
    ),
    Mutant(
        "mark_after_run",
        "a suspect is marked when its delivery has ended",
        "crashes",
        "scheduler/_delivery/suspects.py",
        "            if await self._claims.mark(flight):\n"
        "                self._hand_over(flight, stored)\n",
        "            self._hand_over(flight, stored)\n"
        "            await self._end_probation(flight)\n"
        "            if await self._claims.mark(flight):\n",
    ),
    Mutant(
        "suspects_together",
        "suspects begin all at once",
        "crashes",
        "scheduler/_delivery/suspects.py",
        "            if await self._begin(flight):\n"
        "                await self._end_probation(flight)\n",
        "            await self._begin(flight)\n",
    ),
    Mutant(
        "never_acquitted",
        "a long delivery stays marked",
        "crashes",
        "scheduler/_delivery/suspects.py",
        "            await self._claims.acquit(flight)\n",
        "            pass\n",
    ),
    Mutant(
        "no_delay_after_a_crash",
        "a suspect is delivered as soon as the process lives again",
        "crashes",
        "scheduler/_delivery/deliverer.py",
        "retry.delay(crashes) if delayed and crashes else 0.0",
        "0.0",
    ),
    Mutant(
        "count_begins_again",
        "a crash while another alarm was marked clears a suspect",
        "crashes",
        "storage/_memory_alarms.py",
        "return 0 if self.crashes is None else self.crashes + (self.marked == self.claim)",
        "return self.crashes + 1 if self.crashes is not None and self.marked == self.claim else 0",
    ),
    Mutant(
        "leaving_acquits",
        "an alarm that is given back is no suspect any more",
        "crashes",
        "scheduler/_delivery/claims.py",
        "        stored.crashes,\n",
        "        None,\n",
    ),
    Mutant(
        "failing_accuses",
        "an attempt that failed leaves the suspicion",
        "crashes",
        "scheduler/_delivery/deliverer.py",
        "return Postponement(key, claim, self._after(delay), failures, last_error)",
        "return Postponement(\n"
        "            key, claim, self._after(delay), failures, last_error, stored.crashes\n"
        "        )",
    ),
]


if __name__ == "__main__":
    sys.exit(main("python -m hold.mutants", MUTANTS, CHECKS))
