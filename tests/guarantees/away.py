"""Tests of guarantees that also run with their objects in another member of a cluster.

`MODULES` has their files. All tests in these run away, but for `EXCEPT`.
"""

from __future__ import annotations

MODULES = {
    f"guarantees.{name}"
    for name in (
        "test_hibernation",
        "test_interrupting",
        "test_isolation",
        "test_lifecycle",
        "test_model",
        "test_output_gate",
        "test_overload",
        "test_races",
        "test_sharing",
        "test_tenant_drop",
        "test_tenants",
        "test_timeouts",
        "test_turn_limits",
        "alarms.test_acknowledging",
        "alarms.test_claims",
        "alarms.test_clocks",
        "alarms.test_crashes",
        "alarms.test_cut_off",
        "alarms.test_elsewhere",
        "alarms.test_failures",
        "alarms.test_firing",
        "alarms.test_isolation",
        "alarms.test_model",
        "alarms.test_recurring",
        "alarms.test_recurring_corners",
        "alarms.test_setting",
        "alarms.test_superseded",
        "alarms.test_unknown_outcomes",
    )
}

_CAUSE = "looks at an error's cause, which crosses as text in a note"
# They pass if the owner closes at the same moment as its client.
_CLOSING = "is about the moments of closing; the owner closes after its client"
_LOOKS = "times or counts looks at the table; a member looks once more when it has its shards"
_INSIDE = "looks inside the runtime that it calls"
_OTHER = "compares the runtime of a handler with the one that the test calls"
_FORM = "has values without a JSON form of their type, which can't cross"

EXCEPT = {
    "test_a_call_that_ended_in_time_is_not_kept_until_its_deadline": _FORM,
    "test_a_limit_keeps_nothing_of_a_turn_that_has_ended": _FORM,
    "test_two_places_are_two_objects_in_memory_as_after_a_restart": _FORM,
    "test_idle_objects_have_no_task": "counts tasks; a link has some, too",
    "test_a_stopped_object_has_no_task": "counts tasks; a link has some, too",
    "test_a_turn_that_is_about_to_begin_is_interrupted_too": _INSIDE,
    "test_of_its_own_turn_it_is_a_circle": "calls the test's runtime from the turn, not its own",
    "test_it_interrupts_after_load": _CAUSE,
    "test_an_after_load_that_raises_fails_all_who_wait_and_is_tried_again": _CAUSE,
    "test_every_call_behind_a_failed_commit_fails": _CAUSE,
    "test_an_async_turn_that_raises_on_lost_ground_fails_with_it": _CAUSE,
    "test_the_error_of_the_handler_is_the_cause": _CAUSE,
    "test_after_control_c_in_after_load_the_next_call_activates_the_object_again": (
        "is about Control-C in the task of the caller, which runs no turn of another process"
    ),
    "test_instruments_see_a_failed_turn": "has the event of the call, which is the caller's",
    "test_a_drop_that_comes_too_late_does_not_reach_for_the_storage": _CLOSING,
    "test_what_is_claimed_while_the_runtime_closes_is_given_back": _CLOSING,
    "test_a_look_at_the_table_that_fails_is_made_again_a_moment_later": _LOOKS,
    "test_a_tenant_that_cant_be_read_keeps_no_alarms_of_others_waiting": _LOOKS,
    "test_a_claim_that_was_lost_acknowledges_nothing": _OTHER,
    "test_what_another_runtime_sets_is_found_at_the_next_look": _OTHER,
    "test_an_alarm_that_cant_be_claimed_cant_be_fired": _INSIDE,
    "test_while_the_disk_hangs_changes_are_refused_and_reads_go_on": (
        "waits for a thread by AnyIO, whose threads are replaced: see `place_objects_away`"
    ),
    "test_alarms_far_beyond_the_horizon_fire_at_their_time": "takes years, with beats of leases",
}
"""Reasons by the names of tests."""

LONG = {
    "test_a_crash_at_every_call_of_the_storage",
    "test_a_week_is_the_same_each_time",
    "test_a_week_of_ten_thousand_recurring_alarms_passes_in_seconds",
    "test_a_spread_as_long_as_the_period_leaves_one_firing_a_period",
    "test_each_half_hour_has_one_firing_whatever_the_clocks_do",
    "test_each_local_day_has_one_firing_whatever_the_clocks_do",
    "test_histories",
    "test_of_a_missed_year_the_last_thousand_fire",
    "test_nothing_fires_early_after_a_clock_was_set_back",
    "test_a_backlog_is_begun_in_the_order_of_its_times_and_each_alarm_once",
    "test_a_delay_is_seconds_or_a_timedelta",
    "test_an_object_without_an_end_stays",
    "test_an_overloaded_object_does_as_much_as_it_can_for_callers_who_still_wait",
    "test_failing_handlers_hold_nobody_up",
    "test_how_many_begin_at_once_is_bounded",
    "test_many_alarms_of_one_slow_object_hold_no_other_object_up",
    "test_nothing_is_lost_over_many_openings",
    "test_the_bound_holds_for_idle_objects_with_any_number_of_busy_ones",
    "test_thousands_of_slow_handlers_hold_others_up_for_moments_only",
    "test_without_attempts_an_alarm_is_tried_for_ever",
}
"""Tests that take a second and more; they run away if all do."""
