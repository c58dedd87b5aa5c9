"use strict";
// The same process after the migration: it opens no database, and hands what it writes to `penholder exec`.
//
//   PENHOLDER=path/to/penholder node sidecar.js daemon|server STORE LOG SECONDS

const { spawn } = require("node:child_process");
const { once } = require("node:events");
const readline = require("node:readline");
const { writes, acknowledgements } = require("./workload.js");

async function main(role, store, log, seconds) {
  const acknowledge = acknowledgements(log);
  const exec = spawn(process.env.PENHOLDER, ["exec", store, "--stdin"], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = once(exec, "close");

  // One line goes in per command, one comes out per command, in the same order.
  const unanswered = [];
  readline.createInterface({ input: exec.stdout }).on("line", (line) => {
    const write = unanswered.shift();
    if (JSON.parse(line).status === "applied") acknowledge([write]);
    else console.error(`${role}: not applied: ${line}`);
  });

  for await (const write of writes("store", role, seconds)) {
    unanswered.push(write);
    const { db, sql, params } = write;
    if (!exec.stdin.write(JSON.stringify({ db, sql, params }) + "\n")) await once(exec.stdin, "drain");
  }
  exec.stdin.end();
  const [code] = await ended;
  if (code !== 0) throw new Error(`penholder exec ended with ${code}`);
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
