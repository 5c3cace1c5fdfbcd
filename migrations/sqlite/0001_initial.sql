-- Times are milliseconds since 1970-01-01 UTC, from the database's clock.

CREATE TABLE jobs (
    job_id          TEXT PRIMARY KEY,
    job_type        TEXT NOT NULL,
    parameters      TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    run_ordinal     INTEGER NOT NULL,
    previous_run    TEXT REFERENCES jobs (job_id),
    correlation_id  TEXT,
    plugin_digest   TEXT NOT NULL,
    stages          TEXT NOT NULL,
    state           TEXT NOT NULL,
    stage           INTEGER NOT NULL DEFAULT 0,
    cancelling      INTEGER NOT NULL DEFAULT 0,
    result          TEXT,
    error           TEXT,
    hint_at         INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    ended_at        INTEGER,
    UNIQUE (idempotency_key, run_ordinal)
) STRICT;
CREATE INDEX jobs_by_time ON jobs (created_at);
CREATE INDEX jobs_open ON jobs (hint_at) WHERE ended_at IS NULL;

CREATE TABLE stages (
    job_id     TEXT NOT NULL REFERENCES jobs (job_id),
    number     INTEGER NOT NULL,
    name       TEXT NOT NULL,
    total      INTEGER NOT NULL,
    remaining  INTEGER NOT NULL CHECK (remaining >= 0),
    failed     INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    ended_at   INTEGER,
    PRIMARY KEY (job_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE tasks (
    task_id          TEXT PRIMARY KEY,
    job_id           TEXT NOT NULL REFERENCES jobs (job_id),
    job_type         TEXT NOT NULL,
    stage            INTEGER NOT NULL,
    position         INTEGER NOT NULL,
    unit             TEXT NOT NULL,
    task_type        TEXT NOT NULL,
    parameters       TEXT NOT NULL,
    queue            TEXT NOT NULL,
    route_reason     TEXT NOT NULL,
    max_retries      INTEGER NOT NULL,
    timeout_seconds  INTEGER NOT NULL,
    state            TEXT NOT NULL,
    attempt          INTEGER NOT NULL DEFAULT 0,
    lease_epoch      INTEGER NOT NULL DEFAULT 0,
    lease_until      INTEGER NOT NULL DEFAULT 0,
    worker           TEXT,
    not_before       INTEGER NOT NULL DEFAULT 0,
    hint_at          INTEGER NOT NULL,
    plugin_digest    TEXT,
    progress         REAL NOT NULL DEFAULT 0,
    progress_message TEXT,
    result           TEXT,
    error            TEXT,
    created_at       INTEGER NOT NULL,
    started_at       INTEGER,
    ended_at         INTEGER,
    UNIQUE (job_id, stage, position)
) STRICT;
CREATE INDEX tasks_open ON tasks (hint_at) WHERE ended_at IS NULL;

-- Finished operations of tasks that are not over; a replayed handler is answered from here.
CREATE TABLE journal (
    task_id       TEXT NOT NULL REFERENCES tasks (task_id),
    sequence      INTEGER NOT NULL,
    operation     TEXT NOT NULL,
    request_hash  TEXT NOT NULL,
    plugin_digest TEXT NOT NULL,
    outcome       TEXT NOT NULL,
    duration_ms   INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    PRIMARY KEY (task_id, sequence)
) STRICT, WITHOUT ROWID;

-- Messages that were decided on together with a row and are not sent yet. An id is never used again: two relays may
-- list the same row, and the slower one must not delete a newer message under the same id.
CREATE TABLE outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    queue      TEXT NOT NULL,
    body       TEXT NOT NULL,
    job_id     TEXT NOT NULL,
    task_id    TEXT,
    not_before INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE events (
    id      INTEGER PRIMARY KEY,
    job_id  TEXT NOT NULL,
    task_id TEXT,
    at      INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    attempt INTEGER,
    worker  TEXT,
    detail  TEXT
) STRICT;
CREATE INDEX events_by_job ON events (job_id, id);

CREATE TABLE queue_messages (
    sequence       INTEGER PRIMARY KEY AUTOINCREMENT,
    queue          TEXT NOT NULL,
    body           TEXT NOT NULL,
    visible_at     INTEGER NOT NULL,
    lock_token     TEXT,
    delivery_count INTEGER NOT NULL DEFAULT 0,
    enqueued_at    INTEGER NOT NULL,
    dead_at        INTEGER,
    dead_reason    TEXT,
    dead_detail    TEXT
) STRICT;
CREATE INDEX queue_messages_ready ON queue_messages (queue, visible_at) WHERE dead_at IS NULL;
