"use strict";
// What the daemon and the server write: the same statements at the same pace, whoever takes them, the file or the sidecar.

const fs = require("node:fs");
const { setTimeout: sleep } = require("node:timers/promises");

// Where the ids of a run begin. The second run goes on with what the first one left, so its rows are new ones.
const RUNS = { file: 1_000_000, store: 2_000_000 };
// Time of the row with id 0, in milliseconds since 1970.
const START = Date.UTC(2025, 5, 2, 9);

// The daemon: a session, then an event in it, and so on.
function recorded(id) {
  const at = START + 1000 * id;
  if (id % 2 === 0) {
    const sql = "INSERT INTO activity_sessions (id, started_at, ended_at, app, title, project_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    return { db: "activity", table: "activity_sessions", id, sql, params: [id, at, at + 900, "editor", `chapter ${id}`, 1 + (id % 4)] };
  }
  const sql = "INSERT INTO activity_events (id, session_id, at, kind) VALUES (?1, ?2, ?3, ?4)";
  return { db: "activity", table: "activity_events", id, sql, params: [id, id - 1, at, "focus"] };
}

// The server: a project, then an appointment, and so on.
function entered(id) {
  const at = START + 60_000 * id;
  if (id % 2 === 0) {
    const sql = "INSERT INTO projects (id, name, created_at) VALUES (?1, ?2, ?3)";
    return { db: "config", table: "projects", id, sql, params: [id, `project ${id}`, at] };
  }
  const sql = "INSERT INTO calendar_events (id, title, starts_at, ends_at) VALUES (?1, ?2, ?3, ?4)";
  return { db: "config", table: "calendar_events", id, sql, params: [id, `appointment ${id}`, at, at + 1_800_000] };
}

const ROLES = {
  daemon: { make: recorded, pauseMs: 4 },
  server: { make: entered, pauseMs: 20 },
};

// Everything that a role writes in so many seconds, each when it is due.
async function* writes(run, role, seconds) {
  const { make, pauseMs } = ROLES[role];
  const began = Date.now();
  for (let n = 0; n * pauseMs < 1000 * seconds; n++) {
    const early = began + n * pauseMs - Date.now();
    if (early > 0) await sleep(early);
    yield make(RUNS[run] + n);
  }
}

// Opens the log of what was acknowledged: one line for each write that its caller was told is safe.
function acknowledgements(file) {
  const log = fs.openSync(file, "wx");
  return (done) => {
    const lines = done.map(({ db, table, id }) => JSON.stringify({ db, table, id }) + "\n");
    fs.writeSync(log, lines.join(""));
  };
}

module.exports = { writes, acknowledgements };
