-- What the user set up: written rarely, read by everybody, small enough to be held in memory.
--
-- Every column that ends in `at` is a Unix time in milliseconds. Nothing here defaults to the current time or to
-- a random value: a command that is applied again must give the same rows.

CREATE TABLE projects (
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    client      TEXT,                       -- for whom the work is done
    color       TEXT,                       -- for charts, as #rrggbb
    created_at  INTEGER,                    -- ms
    archived_at INTEGER                     -- ms; NULL while the project is active
) STRICT;

-- Time spent on a domain, or on a subdomain without an entry of its own, belongs to the project.
CREATE TABLE project_domains (
    domain     TEXT NOT NULL PRIMARY KEY,   -- host name, lower case, without a leading dot
    project_id INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE
) STRICT;

CREATE INDEX project_domains_by_project ON project_domains (project_id);

-- A calendar entry whose title contains the keyword belongs to the project; the longest keyword decides.
CREATE TABLE project_calendar_keywords (
    keyword    TEXT NOT NULL PRIMARY KEY,   -- compared without regard to case
    project_id INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    CHECK (keyword <> '')
) STRICT;

CREATE INDEX project_calendar_keywords_by_project ON project_calendar_keywords (project_id);

-- A calendar that is fetched from elsewhere.
CREATE TABLE calendar_subscriptions (
    id              INTEGER PRIMARY KEY,
    url             TEXT NOT NULL UNIQUE,   -- of an iCalendar file
    name            TEXT,                   -- as shown to the user
    refresh_seconds INTEGER NOT NULL DEFAULT 3600 CHECK (refresh_seconds > 0), -- time between two fetches, s
    enabled         INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    etag            TEXT,                   -- version of the content that was fetched last, as its server names it
    fetched_at      INTEGER                 -- ms; NULL until it was fetched once
) STRICT;

-- One appointment; every occurrence of a recurring one is a row of its own.
CREATE TABLE calendar_events (
    id              INTEGER PRIMARY KEY,
    subscription_id INTEGER REFERENCES calendar_subscriptions (id) ON DELETE CASCADE, -- NULL: entered by hand
    uid             TEXT,                   -- the calendar's name for it, the same for all its occurrences
    title           TEXT NOT NULL,
    starts_at       INTEGER NOT NULL,       -- ms; the first moment that belongs to it
    ends_at         INTEGER NOT NULL,       -- ms; the first moment that no longer does
    location        TEXT,
    UNIQUE (subscription_id, uid, starts_at),
    CHECK (ends_at >= starts_at)
) STRICT;

CREATE INDEX calendar_events_by_start ON calendar_events (starts_at);

CREATE TABLE settings (
    key   TEXT NOT NULL PRIMARY KEY,        -- dotted words, such as report.day_starts_at_hour
    value TEXT
) STRICT;
