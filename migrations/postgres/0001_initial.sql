-- Times are milliseconds since 1970-01-01 UTC, from the database's clock, as in SQLite: the statements are the same.

CREATE TABLE jobs (
    job_id          TEXT PRIMARY KEY,
    job_type        TEXT NOT NULL,
    parameters      TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    run_ordinal     BIGINT NOT NULL,
    previous_run    TEXT REFERENCES jobs (job_id),
    correlation_id  TEXT,
    plugin_digest   TEXT NOT NULL,
    stages          TEXT NOT NULL,
    state           TEXT NOT NULL,
    stage           BIGINT NOT NULL DEFAULT 0,
    cancelling      BOOLEAN NOT NULL DEFAULT FALSE,
    result          TEXT,
    error           TEXT,
    hint_at         BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    ended_at        BIGINT,
    UNIQUE (idempotency_key, run_ordinal)
);
CREATE INDEX jobs_by_time ON jobs (created_at);
CREATE INDEX jobs_open ON jobs (hint_at) WHERE ended_at IS NULL;

CREATE TABLE stages (
    job_id     TEXT NOT NULL REFERENCES jobs (job_id),
    number     BIGINT NOT NULL,
    name       TEXT NOT NULL,
    total      BIGINT NOT NULL,
    remaining  BIGINT NOT NULL CHECK (remaining >= 0),
    failed     BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    ended_at   BIGINT,
    PRIMARY KEY (job_id, number)
);

-- Pages keep room for new versions of rows: a task's row is written a few times and then never again.
CREATE TABLE tasks (
    task_id          TEXT PRIMARY KEY,
    job_id           TEXT NOT NULL REFERENCES jobs (job_id),
    job_type         TEXT NOT NULL,
    stage            BIGINT NOT NULL,
    position         BIGINT NOT NULL,
    unit             TEXT NOT NULL,
    task_type        TEXT NOT NULL,
    parameters       TEXT NOT NULL,
    queue            TEXT NOT NULL,
    route_reason     TEXT NOT NULL,
    max_retries      BIGINT NOT NULL,
    timeout_seconds  BIGINT NOT NULL,
    state            TEXT NOT NULL,
    attempt          BIGINT NOT NULL DEFAULT 0,
    lease_epoch      BIGINT NOT NULL DEFAULT 0,
    lease_until      BIGINT NOT NULL DEFAULT 0,
    worker           TEXT,
    not_before       BIGINT NOT NULL DEFAULT 0,
    hint_at          BIGINT NOT NULL,
    plugin_digest    TEXT,
    cancelling       BOOLEAN NOT NULL DEFAULT FALSE,
    progress         DOUBLE PRECISION NOT NULL DEFAULT 0,
    progress_message TEXT,
    result           TEXT,
    error            TEXT,
    created_at       BIGINT NOT NULL,
    started_at       BIGINT,
    ended_at         BIGINT,
    UNIQUE (job_id, stage, position)
) WITH (fillfactor = 70);
-- By a column that never changes, so that new versions of open rows stay on their page.
CREATE INDEX tasks_open ON tasks (job_id) WHERE ended_at IS NULL;

-- Finished operations of tasks that are not over; a replayed handler is answered from here. An entry holds for the plugin
-- and the inputs that it was made with.
CREATE TABLE journal (
    task_id      TEXT NOT NULL REFERENCES tasks (task_id),
    sequence     BIGINT NOT NULL,
    operation    TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    binding      TEXT NOT NULL,
    outcome      TEXT NOT NULL,
    duration_ms  BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (task_id, sequence)
);

-- Messages that were decided on together with a row and are not sent yet.
CREATE TABLE outbox (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue      TEXT NOT NULL,
    body       TEXT NOT NULL,
    job_id     TEXT NOT NULL,
    task_id    TEXT,
    not_before BIGINT NOT NULL DEFAULT 0,
    held_until BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE events (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id  TEXT NOT NULL,
    task_id TEXT,
    at      BIGINT NOT NULL,
    kind    TEXT NOT NULL,
    attempt BIGINT,
    worker  TEXT,
    detail  TEXT
);
CREATE INDEX events_by_job ON events (job_id, id);

CREATE TABLE leases (
    name       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    held_until BIGINT NOT NULL
);

CREATE TABLE workers (
    worker     TEXT PRIMARY KEY,
    app_name   TEXT NOT NULL,
    mode       TEXT NOT NULL,
    slots      BIGINT NOT NULL,
    busy       BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL
);

CREATE TABLE queue_messages (
    sequence       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue          TEXT NOT NULL,
    body           TEXT NOT NULL,
    visible_at     BIGINT NOT NULL,
    lock_token     TEXT,
    delivery_count BIGINT NOT NULL DEFAULT 0,
    enqueued_at    BIGINT NOT NULL,
    dead_at        BIGINT,
    dead_reason    TEXT,
    dead_detail    TEXT
);
CREATE INDEX queue_messages_ready ON queue_messages (queue, visible_at) WHERE dead_at IS NULL;
