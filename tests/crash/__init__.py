"""What crashes, power cuts and failing disks leave, and what can be read of a damaged file.

    test_kills, test_alarm_kills   killed at any moment under load, by another process; likewise
    test_message_kills, test_recurring_kills
    test_kill_points               killed at named points of the library's work, by itself
    test_power_loss                the power is cut after every write to the disk; syncs fail
    test_failing_disk              every call to the disk fails in turn; it is full; it is broken
    test_torn_log                  the log cut off at every length, and flipped bits in it
    test_corrupt_rows              rows with what no release has written
    test_damaged_file              bits, sectors, pages and tables gone
    test_disk                      the disk of these tests itself

All search a little each time. For longer searches set ``TRIO_DURABLE_KILLS`` (kills per point, or
per test), ``TRIO_DURABLE_POWER_SEEDS`` (histories), ``TRIO_DURABLE_FAULT_EVERY`` (1: no call is
left out) and ``TRIO_DURABLE_DAMAGES`` (damaged files).
"""
