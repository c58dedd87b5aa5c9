-- What was done when: written at a high rate, by daemons.
--
-- Every column that ends in `at` is a Unix time in milliseconds. Ids may be chosen by the client, which then
-- can refer to a row it has only just queued; left out, SQLite counts them. Nothing here defaults to the current
-- time or to a random value: a command that is applied again must give the same rows.

-- A stretch of time that one application window had the user's attention.
CREATE TABLE activity_sessions (
    id         INTEGER PRIMARY KEY,
    started_at INTEGER NOT NULL,    -- ms; the first moment that belongs to it
    ended_at   INTEGER,             -- ms; the first moment that no longer does; NULL while it runs
    app        TEXT NOT NULL,       -- name of the program, as the system tells it
    title      TEXT,                -- title of its window
    domain     TEXT,                -- host name, lower case, when the program is a browser
    project_id INTEGER,             -- projects.id in config, set by hand; NULL: its domain decides
    CHECK (ended_at >= started_at)
) STRICT;

-- Sessions that overlap a span of time: those that end after it begins, and those that still run.
CREATE INDEX activity_sessions_by_end ON activity_sessions (ended_at, started_at);
CREATE INDEX activity_sessions_by_start ON activity_sessions (started_at);

-- Something that happened at one moment, usually within a session.
CREATE TABLE activity_events (
    id         INTEGER PRIMARY KEY,
    session_id INTEGER REFERENCES activity_sessions (id) ON DELETE CASCADE, -- NULL: outside of any session
    at         INTEGER NOT NULL,    -- ms
    kind       TEXT NOT NULL,       -- what happened: focus, idle, lock, save, ...
    data       TEXT                 -- details, by convention one JSON object
) STRICT;

CREATE INDEX activity_events_by_time ON activity_events (at);
CREATE INDEX activity_events_by_session ON activity_events (session_id) WHERE session_id IS NOT NULL;
