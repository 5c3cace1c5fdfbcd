-- What plugins were asked and what they answered, for replay against a candidate.

-- Parameters, facts and answers of operations, each once: most decisions of a task share them.
CREATE TABLE decision_inputs (
    digest   TEXT PRIMARY KEY,
    document TEXT NOT NULL
);

CREATE TABLE decisions (
    id             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at             BIGINT NOT NULL,
    kind           TEXT NOT NULL,
    type_name      TEXT NOT NULL,
    plugin_digest  TEXT NOT NULL,
    contract       TEXT NOT NULL,
    host_version   TEXT NOT NULL,
    job_id         TEXT,
    task_id        TEXT,
    stage          BIGINT,
    attempt        BIGINT,
    input_digest   TEXT NOT NULL,
    context_digest TEXT,
    output         TEXT,
    output_digest  TEXT NOT NULL,
    log            TEXT,
    duration_ms    DOUBLE PRECISION NOT NULL
);
CREATE INDEX decisions_by_task ON decisions (task_id, id) WHERE kind = 'handle';
-- Whether a document is still needed.
CREATE INDEX decisions_by_input ON decisions (input_digest);
CREATE INDEX decisions_by_context ON decisions (context_digest) WHERE context_digest IS NOT NULL;
