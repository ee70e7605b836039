"""Fault injection: an exception, a cancellation or a call on each line that runs in the loop.

    python -m tests.injection                               everything: an hour
    python -m tests.injection --every 20 --situation queued
    python -m tests.injection --backend trio --action memory --points activations/worker

A trial is one run of one situation, in a forked process, with one fault on one line of the library.
Afterwards the replies that callers got are compared with the file, the object is called again, and
the runtime is left. `situations` has the situations, `faults` the faults and the tracer that raises
them, `trial` what a trial does, `verdict` how it is judged, and `campaign` runs trials.
"""
