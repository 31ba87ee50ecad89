-- Commands of PgBouncer's console.

-- name: show_version
-- Answered by any PgBouncer that works.
SHOW VERSION;

-- name: reload
-- Reads the config file again. Connections to another host than the new one are closed after their transaction.
RELOAD;

-- name: kill_sessions
-- Closes every connection of the sessions at once, on both sides; new clients wait until `resume_sessions`.
KILL shardd_sessions;

-- name: resume_sessions
-- Serves them again.
RESUME shardd_sessions;
