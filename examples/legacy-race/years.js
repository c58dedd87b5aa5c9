"use strict";
// Makes the file that the race is about, as years of use would have: some projects were deleted, and because sql.js
// never enforced the foreign keys, what belonged to them is still there.
//
//   node years.js FILE

const fs = require("node:fs");
const initSqlJs = require("sql.js");

const SCHEMA = `
  CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, client TEXT, color TEXT, created_at INTEGER,
    archived_at INTEGER);
  CREATE TABLE project_domains (domain TEXT NOT NULL PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects (id));
  CREATE TABLE project_calendar_keywords (keyword TEXT NOT NULL PRIMARY KEY,
    project_id INTEGER NOT NULL REFERENCES projects (id));
  CREATE TABLE calendar_subscriptions (id INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE, name TEXT,
    refresh_seconds INTEGER NOT NULL DEFAULT 3600, enabled INTEGER NOT NULL DEFAULT 1, etag TEXT, fetched_at INTEGER);
  CREATE TABLE calendar_events (id INTEGER PRIMARY KEY, subscription_id INTEGER REFERENCES calendar_subscriptions (id),
    uid TEXT, title TEXT NOT NULL, starts_at INTEGER NOT NULL, ends_at INTEGER NOT NULL, location TEXT);
  CREATE TABLE settings (key TEXT NOT NULL PRIMARY KEY, value TEXT);
  CREATE TABLE activity_sessions (id INTEGER PRIMARY KEY, started_at INTEGER NOT NULL, ended_at INTEGER,
    app TEXT NOT NULL, title TEXT, domain TEXT, project_id INTEGER REFERENCES projects (id));
  CREATE TABLE activity_events (id INTEGER PRIMARY KEY, session_id INTEGER REFERENCES activity_sessions (id),
    at INTEGER NOT NULL, kind TEXT NOT NULL, data TEXT);
  CREATE INDEX activity_sessions_by_start ON activity_sessions (started_at);
  CREATE INDEX activity_events_by_session ON activity_events (session_id);
  CREATE INDEX calendar_events_by_start ON calendar_events (starts_at);
`;
const PROJECTS = 12;
const DELETED = 3;
const SESSIONS = 2000;
const START = Date.UTC(2021, 0, 4, 8);

async function main(file) {
  const SQL = await initSqlJs();
  const db = new SQL.Database();
  db.exec(SCHEMA);
  for (let id = 1; id <= PROJECTS; id++) {
    db.run("INSERT INTO projects (id, name, created_at) VALUES (?, ?, ?)", [id, `client ${id}`, START]);
    db.run("INSERT INTO project_domains VALUES (?, ?)", [`client-${id}.example`, id]);
  }
  for (let id = 1; id <= SESSIONS; id++) {
    const [at, project] = [START + 3_600_000 * id, 1 + (id % PROJECTS)];
    db.run("INSERT INTO activity_sessions VALUES (?, ?, ?, 'browser', ?, ?, ?)",
      [id, at, at + 1_200_000, `page ${id}`, `client-${project}.example`, project]);
    db.run("INSERT INTO activity_events (session_id, at, kind) VALUES (?, ?, 'focus')", [id, at]);
  }
  db.run("INSERT INTO settings VALUES ('theme', 'dark'), ('report.day_starts_at_hour', '4')");
  db.run("DELETE FROM projects WHERE id > ?", [PROJECTS - DELETED]);
  fs.writeFileSync(file, db.export());
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
