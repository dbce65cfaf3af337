-- The node's own drift records, for whoever asks with SQL: a copy, a few seconds behind (see monitor/drift.rs).
CREATE TABLE drift_history (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    number        INTEGER NOT NULL,
    detected_at   TEXT NOT NULL,
    database_name TEXT NOT NULL,
    table_name    TEXT NOT NULL,
    record_id     TEXT NOT NULL,
    peer          TEXT NOT NULL DEFAULT '',
    tier          TEXT NOT NULL DEFAULT '',
    kind          TEXT NOT NULL,
    likely_cause  TEXT NOT NULL DEFAULT '',
    action        TEXT NOT NULL,
    row_count     INTEGER NOT NULL DEFAULT 1,
    verification  INTEGER,
    repaired_at   TEXT,
    message       TEXT NOT NULL,
    details       TEXT CHECK (details IS NULL OR json_valid(details)),
    UNIQUE (number, detected_at)
);
CREATE INDEX drift_history_open ON drift_history (number) WHERE repaired_at IS NULL;
