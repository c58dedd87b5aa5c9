-- A database as an application grows one over the years, with nearly everything that SQLite lets it have. Runs in SQLite
-- from 3.37 on, whatever its encoding. Activity: visits, raw, "odd ""table""", "Über". Config: the others.

CREATE TABLE owners (name TEXT PRIMARY KEY COLLATE NOCASE, quota INTEGER) WITHOUT ROWID;
CREATE TABLE pages (
    id    INTEGER PRIMARY KEY,
    url   TEXT NOT NULL UNIQUE COLLATE NOCASE,
    owner TEXT REFERENCES owners (name) ON UPDATE CASCADE ON DELETE SET NULL,
    gone  TEXT
);
CREATE TABLE strict_settings (key TEXT PRIMARY KEY, number INT, real REAL, bytes BLOB, anything ANY) STRICT;

CREATE TABLE visits (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    page_id INTEGER NOT NULL REFERENCES pages (id) ON DELETE CASCADE,   -- crosses the cut
    before  INTEGER REFERENCES visits,                                  -- stays
    seconds REAL,
    minutes REAL GENERATED ALWAYS AS (seconds / 60) VIRTUAL,
    label   TEXT GENERATED ALWAYS AS ('visit ' || id) STORED
);
CREATE TABLE raw (value, number INTEGER);
CREATE TABLE "odd ""table""" ("order" TEXT, "a b" TEXT, [c.d] INT, PRIMARY KEY ("a b", "order"));
CREATE TABLE "Über" (größe INTEGER DEFAULT (1 + 1));
CREATE TABLE audit (at INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT);

INSERT INTO owners VALUES ('Ada', 9223372036854775807), ('Émile', -9223372036854775808), ('', NULL);
WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
INSERT INTO pages SELECT i, 'https://example.org/' || i, iif(i % 3, 'ada', 'deleted long ago'), NULL FROM n;
INSERT INTO strict_settings VALUES ('numbers', -1, 1e308, x'00ff00', 'text'), ('none', NULL, NULL, NULL, x''), ('any', 0, 5e-324, x'', 1.0);

-- Half of the pages that were visited are gone: orphans across the cut. So are some visits before: orphans on one side.
WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
INSERT INTO visits (page_id, before, seconds) SELECT 1 + i % 600, iif(i % 50, NULL, i * 2), i / 7.0 FROM n;
DELETE FROM visits WHERE id > 2990;
INSERT INTO visits (page_id, seconds) VALUES (1, 'a text in a number''s place');

-- Every storage class, the limits of each, and rowids with gaps.
INSERT INTO raw (rowid, value, number) VALUES
    (-9223372036854775808, 0, 1), (-5, 9223372036854775807, -9223372036854775808), (1, 0.1, 'not a number'),
    (2, 1.7976931348623157e308, 1.5), (3, 5e-324, '12'), (4, 9e999, 0.0), (5, -9e999, ''), (7, '', x'31'), (9, x'', NULL),
    (100, 'a' || char(0) || 'b', NULL), (101, x'0000', NULL), (102, 'naïve 🦀', NULL), (103, zeroblob(70000), NULL),
    (104, 1e15 + 0.3, NULL), (105, 123456789012345678, NULL), (9223372036854775807, NULL, NULL);
INSERT INTO "odd ""table""" VALUES ('x', 'y', 1), ('X', 'y', '1x'), (NULL, NULL, NULL), (NULL, NULL, NULL);
INSERT INTO "Über" DEFAULT VALUES;

CREATE INDEX visits_by_page ON visits (page_id, seconds DESC);
CREATE INDEX visits_long ON visits (seconds) WHERE seconds > 100;
CREATE INDEX pages_by_length ON pages (length(url), lower(owner));
CREATE UNIQUE INDEX "odd index" ON "odd ""table""" ("a b" COLLATE RTRIM, "order" DESC, [c.d]);
CREATE VIEW long_visits AS SELECT id, minutes FROM visits WHERE seconds > 400;
CREATE VIEW owned (url, quota) AS SELECT url, quota FROM pages JOIN owners ON name = owner;
CREATE TRIGGER pages_audited AFTER INSERT ON pages BEGIN INSERT INTO audit (what) VALUES ('page ' || new.url); END;
-- Over the cut, where neither can go on.
CREATE VIEW visited AS SELECT url, seconds FROM visits JOIN pages ON pages.id = page_id;
CREATE TRIGGER visits_audited AFTER DELETE ON visits BEGIN INSERT INTO audit (what) VALUES ('gone ' || old.id); END;
CREATE TRIGGER visits_checked BEFORE INSERT ON visits WHEN new.seconds < 0 BEGIN SELECT RAISE(ABORT, 'negative'); END;

-- Rows that were written before a column came are shorter than the table.
ALTER TABLE visits ADD COLUMN device TEXT DEFAULT 'unknown';
ALTER TABLE pages DROP COLUMN gone;
INSERT INTO visits (page_id, seconds, device) VALUES (2, 0, 'phone');
INSERT INTO pages (id, url) VALUES (1000, 'https://example.org/new');
DELETE FROM audit;

PRAGMA user_version = 42;
PRAGMA application_id = -1234567;
