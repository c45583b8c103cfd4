// graphile-worker on PostgreSQL, with its local queue and its batched completion, in a process of
// its own. It stores no results and has no callbacks. "bare" leaves it at that, and ends when the
// last job has begun; "counted" does by hand what is missing: each job writes its result and counts
// itself off in one statement, and the one that is last adds the callback's job.
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { makeWorkerUtils, run } from "graphile-worker";
import { check, serve } from "./contender.js";

const connectionString = process.env.PEERS_POSTGRESQL;
const [variant, role] = process.argv.slice(2);
const TABLES = `
  CREATE TABLE IF NOT EXISTS public.sets (id int PRIMARY KEY, remaining int NOT NULL);
  CREATE TABLE IF NOT EXISTS public.results (
    set_id int, place int, value int, PRIMARY KEY (set_id, place));
  TRUNCATE public.sets, public.results`;
const COUNT = `
  WITH written AS (INSERT INTO public.results VALUES ($1, $2, $3) RETURNING 1)
  UPDATE public.sets SET remaining = remaining - (SELECT count(*) FROM written)
  WHERE id = $1 RETURNING remaining`;
const ADD = `
  SELECT graphile_worker.add_jobs(array_agg(json_populate_record(
    null::graphile_worker.job_spec, json_build_object('identifier', 'add',
      'payload', json_build_object('set', $1::int, 'place', i, 'x', i, 'y', i)))))
  FROM generate_series(0, $2::int - 1) i`;

async function work() {
  process.on("disconnect", () => process.exit(0));
  let begun = 0;
  await run({
    connectionString,
    preset: {
      worker: {
        concurrentJobs: 24,
        maxPoolSize: 26,
        localQueue: { size: 500 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
    logger: undefined,
    noHandleSignals: true,
    taskList: {
      add: async ({ set, place, x, y }, helpers) => {
        begun += 1;
        if (variant === "bare") return void process.send({ begun, at: Date.now() / 1000 });
        const { rows } = await helpers.query(COUNT, [set, place, x + y]);
        if (rows[0].remaining === 0) await helpers.addJob("total", { set });
      },
      total: async ({ set }, helpers) => {
        const text = "SELECT value FROM public.results WHERE set_id = $1 ORDER BY place";
        const { rows } = await helpers.query(text, [set]);
        const at = Date.now() / 1000;
        process.send({ total: rows.reduce((sum, row) => sum + row.value, 0), at });
      },
    },
  });
  process.send({ isUp: true });
}

async function main() {
  const utils = await makeWorkerUtils({ connectionString });
  await utils.migrate();
  await utils.release();
  const pool = new pg.Pool({ connectionString });
  await pool.query(TABLES);
  const child = fork(fileURLToPath(import.meta.url), [variant, "worker"]);
  await new Promise((resolve) => child.once("message", resolve));
  let set = 0;
  let before = 0;
  await serve(async (count) => {
    set += 1;
    const ended = new Promise((resolve) => {
      child.removeAllListeners("message");
      child.on("message", (message) => {
        if (message.total !== undefined || message.begun === before + count) resolve(message);
      });
    });
    const client = await pool.connect();
    await client.query("BEGIN");
    await client.query("INSERT INTO public.sets VALUES ($1, $2)", [set, count]);
    await client.query(ADD, [set, count]);
    await client.query("COMMIT");
    client.release();
    const submitted = Date.now() / 1000;
    const { total, at } = await ended;
    before += count;
    if (variant !== "bare") check(total, count);
    return [submitted, at];
  });
  process.exit(0);
}

if (role === "worker") await work();
else await main();
