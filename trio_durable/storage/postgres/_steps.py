"""Steps of the schema of a PostgreSQL database, from nothing to that of this release.

A step that has been released never changes. The constants that it was released with are part of it.
"""

from __future__ import annotations

import attrs

GONE = "DU001"
"""SQLSTATE of the error of a save whose row was deleted."""


@attrs.frozen
class Migration:
    """One step from a schema to the next one, and back."""

    name: str
    up: tuple[str, ...]
    down: tuple[str, ...]


_OBJECTS = Migration(
    "m001_objects",
    (
        # COLLATE "C" sorts text by its UTF-8 bytes. A save is a HOT update, which changes no index:
        # each page has room for the new version of a row, and only the key is indexed.
        """CREATE TABLE {objects} (
    type_name  text COLLATE "C" NOT NULL,
    object_id  text COLLATE "C" NOT NULL,
    owner      uuid,             -- for runtimes that share objects; not used yet
    epoch      bigint NOT NULL,  -- which of the objects that ever had this key
    revision   bigint NOT NULL,  -- the object's commit number, from 1
    updated_at bigint NOT NULL,  -- microseconds since 1970 UTC
    state      text NOT NULL,    -- JSON
    CONSTRAINT durable_objects_pkey PRIMARY KEY (type_name, object_id)
) WITH (fillfactor = 70)""",
        # The half of the fence that an upsert can't express: a save whose row was deleted would
        # insert it again. A save that updates its row doesn't run the trigger.
        f"""CREATE FUNCTION {{begin_at_1}}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'stale: the object is gone' USING ERRCODE = '{GONE}';
END
$$""",
        """CREATE TRIGGER durable_objects_begin_at_1 AFTER INSERT ON {objects}
    FOR EACH ROW WHEN (NEW.revision <> 1) EXECUTE FUNCTION {begin_at_1}()""",
    ),
    ("DROP TABLE {objects}", "DROP FUNCTION {begin_at_1}()"),
)
_ALARMS = Migration(
    "m002_alarms",
    (
        """CREATE TABLE {alarms} (
    type_name    text COLLATE "C" NOT NULL,
    object_id    text COLLATE "C" NOT NULL,
    name         text COLLATE "C" NOT NULL,
    due_at       bigint NOT NULL,  -- microseconds since 1970 UTC
    available_at bigint,           -- the same; NULL for a dead letter
    claim        bigint,           -- whose it is, until available_at
    failures     bigint NOT NULL DEFAULT 0,
    last_error   text,
    payload      text,             -- JSON
    CONSTRAINT durable_alarms_pkey PRIMARY KEY (type_name, object_id, name)
)""",
        # With the key, so that the horizon feed reads the index alone and finds dead letters in
        # order.
        """CREATE INDEX durable_alarms_by_time
    ON {alarms} (available_at, type_name, object_id, name)""",
    ),
    ("DROP TABLE {alarms}",),
)
TENANTS = Migration(
    "m003_tenants",
    (
        """CREATE TABLE {tenants} (
    name text COLLATE "C" NOT NULL,
    CONSTRAINT durable_tenants_pkey PRIMARY KEY (name)
)""",
    ),
    ("DROP TABLE {tenants}",),
)

_CRASHES = Migration(
    "m004_crashes",
    (
        # crashes is NULL, or for a suspect the number of the processes that it has ended. marked is
        # the claim that the delivery of a suspect has begun with; it needs no reset, since the next
        # claim is another number.
        """ALTER TABLE {alarms}
    ADD COLUMN crashes bigint,
    ADD COLUMN marked bigint""",
    ),
    (
        """ALTER TABLE {alarms}
    DROP COLUMN crashes,
    DROP COLUMN marked""",
    ),
)

_CLUSTER = Migration(
    "m005_cluster",
    (
        # Numbers that all nodes must agree on, and the secret by which they know each other.
        """CREATE TABLE {cluster} (
    only_one       boolean NOT NULL DEFAULT true CHECK (only_one),
    shards         integer NOT NULL,
    shard_function integer NOT NULL,
    secret         bytea NOT NULL,
    CONSTRAINT durable_cluster_pkey PRIMARY KEY (only_one)
)""",
        """CREATE TABLE {nodes} (
    node_id uuid NOT NULL,
    name    text NOT NULL,              -- for people
    host    text NOT NULL,
    pid     bigint NOT NULL,
    address text,                       -- where other nodes call it
    "group" text,                       -- NULL: it owns all objects alone
    serves  boolean NOT NULL DEFAULT false,  -- it may own shards
    types   jsonb NOT NULL DEFAULT '{{}}',   -- schema versions by stored type name
    release text NOT NULL,              -- of trio_durable
    app_release bigint NOT NULL DEFAULT 0,   -- of the application; 0 if it gives none
    server  text NOT NULL,              -- incarnation of the server that it has joined
    status  text NOT NULL,              -- 'up' or 'leaving'
    ttl     double precision NOT NULL,  -- seconds
    proof   text,                       -- JSON: the file that the process has locked
    CONSTRAINT durable_nodes_pkey PRIMARY KEY (node_id)
)""",
        # Narrow, because it changes all the time.
        """CREATE TABLE {beats} (
    node_id   uuid NOT NULL,
    renewals  bigint NOT NULL,
    beaten_at timestamptz NOT NULL DEFAULT clock_timestamp(),  -- for messages only
    CONSTRAINT durable_beats_pkey PRIMARY KEY (node_id)
)""",
        """CREATE TABLE {shards} (
    "group" text NOT NULL,
    shard   integer NOT NULL,
    owner   uuid CONSTRAINT durable_shards_owner_fkey REFERENCES {nodes} ON DELETE SET NULL,
    term    bigint NOT NULL DEFAULT 0,  -- grows with each change of the owner
    CONSTRAINT durable_shards_pkey PRIMARY KEY ("group", shard)
)""",
        # For the removal of a node.
        "CREATE INDEX durable_shards_by_owner ON {shards} (owner)",
    ),
    (
        "DROP TABLE {shards}",
        "DROP TABLE {beats}",
        "DROP TABLE {nodes}",
        "DROP TABLE {cluster}",
    ),
)

FILLED = "DU002"
"""SQLSTATE of the error of a step back that would delete messages or once-keys."""

MESSAGE_SHARDS = 1024
"""The number of shards in the key of messages, which is that of every database."""

# Immutable, as ``convert_to`` isn't: decode() takes all bytes but a backslash as they are.
_UTF8 = "decode(replace(to_id, chr(92), repeat(chr(92), 2)), 'escape')"
_SHARD_OF_RECEIVER = f"""mod(
        ('x' || left(encode(sha256({_UTF8}), 'hex'), 8))::bit(32)::bigint, {MESSAGE_SHARDS})"""

# The columns of a message, waiting or dead. Those after the arguments change with a deferral.
_MESSAGE = """
    to_type    text COLLATE "C" NOT NULL,
    to_id      text COLLATE "C" NOT NULL,
    lane       text COLLATE "C" NOT NULL,  -- '' if it waits for no other message
    token      bigint NOT NULL,            -- its public id
    handler    text NOT NULL,
    arguments  text NOT NULL,              -- JSON
    sent_at    bigint NOT NULL,            -- microseconds since 1970 UTC
    wake_at    bigint,                     -- the same; NULL if it is awake
    failures   bigint NOT NULL DEFAULT 0,
    crashes    bigint NOT NULL DEFAULT 0,
    hops       bigint NOT NULL DEFAULT 0,
    from_type  text COLLATE "C",
    from_id    text COLLATE "C",
    reply_to   text,
    failed_to  text,
    sender_key text COLLATE "C",
    once_key   text,
    last_error text,"""

REFUSE_IF_FILLED = tuple(
    f"""DO $$ DECLARE n bigint; BEGIN
    SELECT count(*) INTO n FROM {table};
    IF n > 0 THEN
        RAISE EXCEPTION '% of the {what} of tenant "{{tenant}}" would be lost, as an older schema '
            'has no place for them; {remedy}', n
            USING ERRCODE = '{FILLED}';
    END IF;
EXCEPTION WHEN undefined_table OR invalid_schema_name THEN NULL;
END $$"""
    for table, what, remedy in (
        ("{messages}", "messages", "open runtimes until all are handled"),
        ("{dead_messages}", "dead messages", "drop them with `trio-durable messages drop`"),
        ("{once}", "once-keys", "wait until they have expired and were removed, or export first"),
    )
)
"""Statements that fail if a tenant has messages, dead letters or once-keys."""

MESSAGES = Migration(
    "m006_messages",
    (
        f"""CREATE TABLE {{messages}} (
    shard      integer NOT NULL GENERATED ALWAYS AS ({_SHARD_OF_RECEIVER}) STORED,
    seq        bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY,{_MESSAGE}
    begun      boolean NOT NULL DEFAULT false,  -- the delivery of a suspect has begun
    CONSTRAINT durable_messages_pkey PRIMARY KEY (shard, to_type, to_id, lane, seq)
)""",
        """CREATE INDEX durable_messages_awake ON {messages} (shard, to_type, to_id, seq)
    WHERE lane = '' AND wake_at IS NULL""",
        """CREATE INDEX durable_messages_by_time ON {messages} (wake_at, seq)
    WHERE wake_at IS NOT NULL""",
        """CREATE INDEX durable_messages_by_sender_key ON {messages} (
    from_type, from_id, sender_key
) WHERE sender_key IS NOT NULL""",
        "CREATE INDEX durable_messages_begun ON {messages} (shard) WHERE begun",
        f"""CREATE TABLE {{dead_messages}} (
    seq        bigint NOT NULL,{_MESSAGE}
    died_at    bigint NOT NULL,
    is_overtaken boolean NOT NULL DEFAULT false,
    CONSTRAINT durable_dead_messages_pkey PRIMARY KEY (seq)
)""",
        "CREATE UNIQUE INDEX durable_dead_messages_by_token ON {dead_messages} (token)",
        "CREATE INDEX durable_dead_messages_by_type ON {dead_messages} (to_type, seq)",
        """CREATE INDEX durable_dead_messages_by_lane ON {dead_messages} (to_id, lane, seq)
    WHERE lane <> '' AND NOT is_overtaken""",
        """CREATE TABLE {once} (
    type_name  text COLLATE "C" NOT NULL,
    object_id  text COLLATE "C" NOT NULL,
    key        text COLLATE "C" NOT NULL,
    handler    text NOT NULL,
    digest     text NOT NULL,    -- of the arguments
    signature  text NOT NULL,    -- of the handler
    reply      text,             -- JSON; NULL until the message has been handled
    expires_at bigint NOT NULL,  -- microseconds since 1970 UTC
    token      bigint,           -- of the message that was sent with the key
    CONSTRAINT durable_once_pkey PRIMARY KEY (type_name, object_id, key)
)""",
        "CREATE INDEX durable_once_by_expiry ON {once} (expires_at)",
    ),
    (
        *REFUSE_IF_FILLED,
        "DROP TABLE {once}",
        "DROP TABLE {dead_messages}",
        "DROP TABLE {messages}",
    ),
)

_RECURRENCES = Migration(
    "m007_recurrences",
    (
        # Which schedule the time of an alarm comes from; NULL if it fires once.
        'ALTER TABLE {alarms} ADD COLUMN recurrence text COLLATE "C"',
        """CREATE INDEX durable_alarms_recurring ON {alarms} (type_name, name, due_at)
    WHERE recurrence IS NOT NULL AND available_at IS NOT NULL""",
    ),
    (
        # Marks of alarms that were turned off would be dead letters.
        "DELETE FROM {alarms} WHERE recurrence = 'stopped'",
        "ALTER TABLE {alarms} DROP COLUMN recurrence",
    ),
)

_VIEWS = Migration(
    "m008_views",
    (
        # For the SQL of users: its columns stay while those of the table change. PostgreSQL lets no
        # program write through a view of two sources; the second one costs nothing.
        """CREATE VIEW {objects_v1} (type, id, revision, updated_at, state) AS
    SELECT type_name, object_id, revision, updated_at, state
    FROM {objects} CROSS JOIN (SELECT 1) AS read_only""",
    ),
    ("DROP VIEW {objects_v1}",),
)

TENANT_STEPS = (_OBJECTS, _ALARMS, _CRASHES, MESSAGES, _RECURRENCES, _VIEWS)
"""The steps of each tenant."""
SHARED_STEPS = (TENANTS, _CLUSTER)
"""The steps of the tables that all tenants share."""
