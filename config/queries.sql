-- Questions to monitor.db, for the sqlite3 shell or any dashboard that speaks SQL, while the node runs:
--   sqlite3 -readonly litemesh-data/monitor.db < config/queries.sql
-- The first three are those of the tracking that this one replaces: its odk_sync_status is sync_status, its odk_sync_history
-- is sync_history, its NOW() - INTERVAL '24 hours' is datetime('now', '-24 hours'). Times are UTC. What every column means
-- stands in the table readme. A test runs all of this.

-- Current sync status
SELECT sync_type, subject, last_sync_timestamp, last_sync_status, successful_sync_count, failed_sync_count
FROM sync_status;

-- Recent sync activity
SELECT sync_type, subject, sync_timestamp, status, records_processed, duration_seconds
FROM sync_history
ORDER BY sync_timestamp DESC LIMIT 10;

-- Performance analysis
SELECT sync_type, AVG(duration_seconds) AS avg_duration, SUM(records_processed) AS total_records
FROM sync_history
WHERE status = 'success' AND sync_timestamp > datetime('now', '-24 hours')
GROUP BY sync_type;

-- What fails, and why
SELECT sync_type, subject, last_error_class, last_error_message, failed_sync_count
FROM sync_status
WHERE failed_sync_count > 0;

-- How well every server does each operation
SELECT s.name, r.operation_type, r.success_count, r.failure_count, r.avg_duration, r.reliability_score, r.last_error
FROM sync_reliability r JOIN servers s USING (server_id);

-- Rows that differed from the log, and what became of them
SELECT detected_at, database_name, table_name, record_id, kind, likely_cause, action, repaired_at, message
FROM drift_history
ORDER BY id DESC LIMIT 10;

-- The newest changes of the apps' rows
SELECT timestamp, server_id, database_name, table_name, record_id, operation
FROM database_changes
ORDER BY id DESC LIMIT 10;
