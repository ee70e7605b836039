"""Remedies of the public errors: what to do about each. Its meaning is in its docstring."""

from __future__ import annotations

REMEDIES = {
    "ActivationFailed": "Correct after_load, or what it depends on. The next call runs it again.",
    "AlarmCrashed": (
        "Find out why the process died, correct the handler, and call retry_alarm() or "
        "`trio-durable alarms retry`; or cancel the alarm."
    ),
    "AlarmSuperseded": "Nothing: the alarm's new setting applies.",
    "AlarmUnhandled": (
        "Deploy the release that declares the alarm, or cancel it with `trio-durable alarms "
        "cancel` if its method is gone for good."
    ),
    "ArgumentError": "Pass what the handler's signature takes, as plain data.",
    "CallCycle": (
        "Move the shared work into a plain method, send a message in place of one of the calls, "
        "or let one side return before the other asks."
    ),
    "CallTimeout": (
        "If may_have_run is False, call again, or with a longer timeout. Otherwise check the "
        "effect of the turn first, or give the call a once-key, which makes it safe to repeat."
    ),
    "CommitRefused": "Send the second half to the object itself, with self.ctx.send().",
    "DefinitionError": "Change the class as the message says.",
    "ForeignHandle": (
        "Send the type and the id in place of the handle, and call runtime.get() where they arrive."
    ),
    "HandlerCancelled": "Let the handler await only what no other code cancels.",
    "InvalidAlarm": "Change the arguments, or the type of the payload, as the message says.",
    "InvalidMessage": "Change the arguments, or send it inside a turn, as the message says.",
    "InvalidObjectId": "Take an id of 1 to 512 bytes in UTF-8, without NUL.",
    "InvalidOnceKey": "Take another key, or leave it out, as the message says.",
    "InvalidTenant": (
        "Take a name of 1 to 48 lowercase letters, digits, - and _ that begins with a letter or "
        "digit."
    ),
    "MailboxFull": "Slow the callers down, shorten the handler, or raise mailbox_size.",
    "NoRuntime": (
        "Enter `async with DurableRuntime(…)` first. If several are open, call through a handle "
        "of one: runtime.get(Type, object_id)."
    ),
    "NotInTurn": "Use self.ctx inside a handler, an alarm or after_load only.",
    "NotOnHandle": "Add a handler for it, or read the state with runtime.get_state().",
    "ObjectNotRunning": "Call the object, or start it with ensure_started(), first.",
    "OnceKeyReused": (
        "Give each call a key of its own, and repeat a call with the same arguments only."
    ),
    "OnceMessageDied": "Correct the receiver's handler, and call retry_message().",
    "OnceReplyUnreadable": (
        "Read the error's reply attribute, which is JSON. The call has run and won't run again."
    ),
    "Overloaded": "Slow the callers down, and call again later. The call didn't run.",
    "OwnerLost": (
        "Check the effect of the call before you repeat it, or give it a once-key, which makes it "
        "safe to repeat."
    ),
    "PersistenceError": (
        "Look at its cause: a disk, a database, a file that was replaced. The next call starts "
        "from the stored state."
    ),
    "ReadonlyViolation": "Drop readonly=True, or let the handler work on a copy.",
    "RemoteError": "Import the error's class here, and give it plain arguments, to catch it.",
    "ReplyDecodeError": (
        "Deploy the same release of the class to all processes. The changes of the call are stored."
    ),
    "ReplyError": "Return plain data.",
    "RuntimeClosed": "Make calls inside `async with DurableRuntime(…)` only.",
    "SchemaTooNew": "Upgrade this installation of trio-durable.",
    "StaleObject": "Repeat the call, which starts from the new state.",
    "StateConflict": (
        "Merge the change with the error's json, and repeat it with expected=(error.revision, "
        "error.digest)."
    ),
    "StateDecodeError": (
        "Correct the class, or add an @upgrade; or correct the row with `trio-durable edit`."
    ),
    "StateEncodeError": "Keep values that JSON represents exactly, or declare the field's type.",
    "StateTooLarge": "Split the object into several, or raise max_state_size.",
    "StateTooNew": "Deploy the release of the class that has this schema.",
    "StorageInUse": (
        "Stop the process that the message names, or share its runtime within this process."
    ),
    "StorageMoved": (
        "Open the target that the message names, or take the mark back with `trio-durable reopen` "
        "if that copy isn't used."
    ),
    "StorageUnavailable": "Check the path or URL, and that the file or the server can be reached.",
    "TenantDropped": "Wait until drop_tenant() has returned. Objects then start from defaults.",
    "TooManyMessages": "Send fewer in a turn, and the rest in turns that follow.",
    "TurnInterrupted": "Check the effects of calls that the turn has made before you repeat it.",
    "TurnTimeout": (
        "Check the effects of calls that the turn has made, then repeat it; or raise its limit."
    ),
    "TurnWontEnd": "Change the handler, which shields itself or catches the cancellation.",
    "UnknownHandler": "Mark the method with @handler. State is read with get_state().",
    "UnknownObjectType": (
        "Import the module that defines the class, or pass it in DurableRuntime(objects=…)."
    ),
    "WatchInTurn": "Watch from a task outside of handlers; inside of one, call the object.",
    "WrongEventLoop": (
        "Make the call with anyio.from_thread.run(), or open a runtime in that event loop."
    ),
}
"""By the name of the class. Bases of several errors, which aren't raised, have none."""
