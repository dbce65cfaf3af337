-- monitor.db: what the node did and how well. Plain SQLite in WAL mode: read it with any tool while the node runs.
-- All times are UTC text 'YYYY-MM-DD HH:MM:SS.SSS', the form of SQLite's own date functions, so that
-- WHERE sync_timestamp > datetime('now', '-24 hours') compares as it reads. The node never waits for this file, and nothing
-- of the apps' data depends on it: deleted while the node is stopped, it is made anew.

-- The documentation, where whoever queries this file finds it: one line per table and column.
CREATE TABLE readme (
    table_name  TEXT NOT NULL,
    column_name TEXT NOT NULL,          -- empty: about the table
    meaning     TEXT NOT NULL,
    PRIMARY KEY (table_name, column_name)
) WITHOUT ROWID;

CREATE TABLE servers (
    server_id  INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id    TEXT NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    updated_at TEXT NOT NULL
);

CREATE TABLE sync_status (
    sync_type               TEXT NOT NULL,
    subject                 TEXT NOT NULL DEFAULT '',
    last_sync_timestamp     TEXT,
    last_attempt_timestamp  TEXT,
    last_sync_status        TEXT NOT NULL DEFAULT 'pending'
                            CHECK (last_sync_status IN ('pending', 'in_progress', 'success', 'error')),
    last_error_class        TEXT,
    last_error_message      TEXT,
    successful_sync_count   INTEGER NOT NULL DEFAULT 0,
    failed_sync_count       INTEGER NOT NULL DEFAULT 0,
    last_records_processed  INTEGER,
    total_records_processed INTEGER NOT NULL DEFAULT 0,
    last_duration_seconds   REAL,
    watermark               TEXT,
    created_at              TEXT NOT NULL,
    updated_at              TEXT NOT NULL,
    PRIMARY KEY (sync_type, subject)
) WITHOUT ROWID;

CREATE TABLE sync_history (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    sync_type         TEXT NOT NULL,
    subject           TEXT NOT NULL DEFAULT '',
    server_id         INTEGER REFERENCES servers (server_id),
    sync_timestamp    TEXT NOT NULL,
    completed_at      TEXT,
    status            TEXT NOT NULL CHECK (status IN ('in_progress', 'success', 'error')),
    runs              INTEGER NOT NULL DEFAULT 1,
    records_processed INTEGER,
    records_total     INTEGER,
    records_failed    INTEGER NOT NULL DEFAULT 0,
    bytes             INTEGER NOT NULL DEFAULT 0,
    duration_seconds  REAL,
    error_class       TEXT,
    error_message     TEXT,
    sync_metadata     TEXT CHECK (sync_metadata IS NULL OR json_valid(sync_metadata)),
    service_instance  TEXT NOT NULL,
    exclusive         INTEGER NOT NULL DEFAULT 0,
    message           TEXT,
    heartbeat_at      TEXT,
    lease_until       TEXT
);
CREATE INDEX sync_history_by_time ON sync_history (sync_timestamp);
CREATE INDEX sync_history_by_kind ON sync_history (sync_type, subject, sync_timestamp);
CREATE INDEX sync_history_open ON sync_history (sync_type, subject) WHERE status = 'in_progress';

CREATE TABLE sync_reliability (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    server_id         INTEGER NOT NULL REFERENCES servers (server_id),
    operation_type    TEXT NOT NULL,
    success_count     INTEGER NOT NULL DEFAULT 0,
    failure_count     INTEGER NOT NULL DEFAULT 0,
    last_success      TEXT,
    last_failure      TEXT,
    last_error        TEXT,
    avg_duration      REAL NOT NULL DEFAULT 0.0,
    reliability_score REAL NOT NULL DEFAULT 1.0,
    updated_at        TEXT NOT NULL,
    UNIQUE (server_id, operation_type)
);

CREATE TABLE reliability_hours (
    server_id        INTEGER NOT NULL REFERENCES servers (server_id),
    operation_type   TEXT NOT NULL,
    hour             TEXT NOT NULL,
    success_count    INTEGER NOT NULL DEFAULT 0,
    failure_count    INTEGER NOT NULL DEFAULT 0,
    duration_seconds REAL NOT NULL DEFAULT 0.0,
    PRIMARY KEY (server_id, operation_type, hour)
) WITHOUT ROWID;

CREATE TABLE error_patterns (
    subject        TEXT NOT NULL,
    operation_type TEXT NOT NULL,
    error_class    TEXT NOT NULL,
    pattern        TEXT NOT NULL,
    count          INTEGER NOT NULL DEFAULT 0,
    first_seen     TEXT NOT NULL,
    last_seen      TEXT NOT NULL,
    example        TEXT NOT NULL,
    PRIMARY KEY (subject, operation_type, pattern)
) WITHOUT ROWID;

CREATE TABLE database_changes (
    id            INTEGER PRIMARY KEY,
    database_name TEXT NOT NULL,
    table_name    TEXT NOT NULL,
    record_id     TEXT NOT NULL,
    operation     TEXT NOT NULL,
    data          TEXT CHECK (data IS NULL OR json_valid(data)),
    timestamp     TEXT NOT NULL,
    sync_status   TEXT NOT NULL DEFAULT 'synced',
    server_id     TEXT NOT NULL,
    change_hash   TEXT NOT NULL,
    retry_count   INTEGER NOT NULL DEFAULT 0,
    last_error    TEXT,
    created_at    TEXT NOT NULL,
    synced_at     TEXT,
    arrival       INTEGER NOT NULL
);
CREATE INDEX database_changes_by_row ON database_changes (database_name, table_name, record_id);

CREATE TABLE alert_history (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    key          TEXT NOT NULL,
    severity     TEXT NOT NULL,
    message      TEXT NOT NULL,
    next_step    TEXT NOT NULL DEFAULT '',
    raised_at    TEXT NOT NULL,
    recovered_at TEXT,
    told_at      TEXT,
    delivery     TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX alert_open ON alert_history (key) WHERE recovered_at IS NULL;

-- Where every event of the log stands in the feed of the older sync protocol: its changes have the times
-- at_us + 0, at_us + 1, … in microseconds since 1970, so that every change has a time of its own.
CREATE TABLE feed (
    arrival INTEGER PRIMARY KEY,
    at_us   INTEGER NOT NULL UNIQUE,
    changes INTEGER NOT NULL
);

-- What servers of the older sync protocol sent, so that it is not sent back to them.
CREATE TABLE legacy_seen (
    server      TEXT NOT NULL,
    place       TEXT NOT NULL,
    record_id   TEXT NOT NULL,
    change_hash TEXT NOT NULL,
    seen_at     TEXT NOT NULL,
    PRIMARY KEY (server, place, record_id)
) WITHOUT ROWID;

CREATE VIEW sync_log_sqlite3 AS
SELECT h.id                                                          AS id,
       coalesce(h.server_id, 0)                                      AS server_id,
       h.sync_type                                                   AS sync_type,
       CASE h.sync_type WHEN 'pull' THEN 'receive' WHEN 'receive' THEN 'receive' WHEN 'legacy_receive' THEN 'receive'
                        WHEN 'serve' THEN 'send' WHEN 'legacy_send' THEN 'send'
                        WHEN 'announce' THEN 'send' ELSE 'both' END  AS direction,
       h.status                                                      AS status,
       h.sync_timestamp                                              AS started_at,
       h.completed_at                                                AS completed_at,
       CASE h.status WHEN 'error' THEN 0 ELSE coalesce(h.records_processed, 0) END AS items_synced,
       h.records_failed                                              AS items_failed,
       h.error_message                                               AS error_message,
       h.sync_metadata                                               AS operation_details,
       json_extract(h.sync_metadata, '$.digest')                     AS sync_hash,
       json_object('duration_seconds', h.duration_seconds, 'bytes', h.bytes, 'runs', h.runs) AS performance_metrics
  FROM sync_history h
 WHERE h.sync_type IN ('sync', 'pull', 'receive', 'serve', 'announce', 'reconcile', 'legacy_receive', 'legacy_send', 'bundle');
