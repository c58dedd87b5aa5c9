"use strict";
// One of the two old processes: loads the whole file, changes its copy in memory, writes the copy over the file, and
// reloads every so often to see what the other one did.
//
//   node legacy.js daemon|server FILE LOG SECONDS

const fs = require("node:fs");
const initSqlJs = require("sql.js");
const { writes, acknowledgements } = require("./workload.js");

// A write is never more than this away from the disk.
const SAVE_MS = 50;
// What the other process saved is seen after this long.
const RELOAD_MS = 500;

async function main(role, file, log, seconds) {
  const SQL = await initSqlJs();
  const acknowledge = acknowledgements(log);
  const load = () => new SQL.Database(fs.readFileSync(file));

  let [db, loaded, saved, unsaved] = [load(), Date.now(), Date.now(), []];

  // Kinder than the original: it saves aside and renames, so nobody ever reads half a file, and nothing is
  // acknowledged before it is saved. All the losses that remain are rows of the other process, overwritten.
  const save = () => {
    fs.writeFileSync(`${file}.${role}`, db.export());
    fs.renameSync(`${file}.${role}`, file);
    acknowledge(unsaved);
    [saved, unsaved] = [Date.now(), []];
  };

  for await (const write of writes("file", role, seconds)) {
    if (unsaved.length === 0 && Date.now() - loaded >= RELOAD_MS) {
      db.close();
      [db, loaded] = [load(), Date.now()];
    }
    db.run(write.sql, write.params);
    unsaved.push(write);
    if (Date.now() - saved >= SAVE_MS) save();
  }
  save();
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
