-- What several relays, sweepers and workers need to keep out of each other's way.

ALTER TABLE outbox ADD COLUMN held_until INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN cancelling INTEGER NOT NULL DEFAULT 0;
-- An entry holds for the plugin and the inputs that it was made with.
ALTER TABLE journal RENAME COLUMN plugin_digest TO binding;

CREATE TABLE leases (
    name       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    held_until INTEGER NOT NULL
) STRICT;

CREATE TABLE workers (
    worker     TEXT PRIMARY KEY,
    app_name   TEXT NOT NULL,
    mode       TEXT NOT NULL,
    slots      INTEGER NOT NULL,
    busy       INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL
) STRICT;
