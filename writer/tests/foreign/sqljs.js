"use strict";
// Runs an SQL script in sql.js, adds rows by binding, and saves all of it as sql.js does: as one snapshot of the file.
//
//   NODE_PATH=... node sqljs.js SCRIPT DATABASE

const fs = require("node:fs");
const initSqlJs = require("sql.js");

initSqlJs().then((SQL) => {
  const [script, file] = process.argv.slice(2);
  const db = new SQL.Database();
  db.exec(fs.readFileSync(script, "utf8"));
  for (const value of [NaN, -0, 2 ** 53, 0.1 + 0.2, "\0", "\u{1f980}", new Uint8Array([0, 255, 0]), null, true]) {
    db.run("INSERT INTO raw (value) VALUES (?)", [value]);
  }
  fs.writeFileSync(file, db.export());
}).catch((error) => {
  console.error(error);
  process.exit(1);
});
