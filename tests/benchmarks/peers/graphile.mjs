/* graphile-worker on PostgreSQL, which has no sets: counted by hand, one statement for each call.

   With the word "bare" nothing is kept and nothing is counted: until the queue is empty. Calls are
   added in one statement, fetched by a local queue, and completed in batches, as its pages on
   performance advise. One worker process: a second one gains nothing on two cores. */
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Logger, makeWorkerUtils, run as runWorker } from "graphile-worker";
import pg from "pg";
import { check, contest, now, numbers, sleep, sum } from "./contest.mjs";

const BARE = process.argv[3] === "bare";
const CONCURRENCY = 10;
const TABLES = `
  CREATE TABLE counted_set (
    id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, remaining int NOT NULL
  );
  CREATE TABLE counted_result (
    set_id int, position int, value jsonb, PRIMARY KEY (set_id, position)
  )`;
const COUNT_DOWN = {
  name: "count_down",
  text: `
    WITH stored AS (INSERT INTO counted_result VALUES ($1, $2, $3))
    UPDATE counted_set SET remaining = remaining - 1 WHERE id = $1 RETURNING remaining`,
};
const RESULTS = "SELECT value FROM counted_result WHERE set_id = $1 ORDER BY position";
const BEGUN = "SELECT pg_notify('callback', $1)";
const LEFT = "SELECT EXISTS (SELECT FROM graphile_worker._private_jobs) AS left";
const logger = new Logger(() => (level, message) => {
  if (level === "error") console.error(message);
});

// Where the server is, it reads from the environment, as libpq does.
const pool = new pg.Pool({ max: CONCURRENCY + 2 });
pool.on("error", (error) => console.error(error));
pool.on("connect", (client) => client.on("error", (error) => console.error(error)));

async function add([setId, position, x, y], helpers) {
  const value = x + y;
  if (BARE) return;
  const values = [setId, position, JSON.stringify(value)];
  const { rows } = await pool.query({ ...COUNT_DOWN, values });
  if (rows[0].remaining === 0) await helpers.addJob("total", setId);
}

async function total(setId) {
  const { rows } = await pool.query(RESULTS, [setId]);
  const began = now();
  const total = sum(rows.map((row) => row.value));
  await pool.query(BEGUN, [JSON.stringify({ began, total })]);
}

async function work() {
  await runWorker({
    pgPool: pool,
    taskList: { add, total },
    preset: {
      worker: {
        concurrentJobs: CONCURRENCY,
        localQueue: { size: 500 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
        logger,
      },
    },
  });
  process.send("ready");
}

async function race() {
  const utils = await makeWorkerUtils({ pgPool: pool, logger });
  await utils.migrate();
  await pool.query(TABLES);
  const listener = await pool.connect();
  await listener.query("LISTEN callback");

  const run = async (count) => {
    const told = once(listener, "notification");
    const began = now();
    const { rows } = await pool.query(
      "INSERT INTO counted_set (remaining) VALUES ($1) RETURNING id",
      [count],
    );
    const setId = rows[0].id;
    const job = (i) => ({ identifier: "add", payload: [setId, i, i, i] });
    await utils.addJobs(numbers(count).map(job));
    const enqueue = now() - began;
    if (BARE) {
      while ((await pool.query(LEFT)).rows[0].left) await sleep(0.02);
      return { enqueue, whole: now() - began };
    }
    const callback = JSON.parse((await told)[0].payload);
    check(callback.total, count);
    return { enqueue, whole: callback.began - began };
  };

  await contest(fileURLToPath(import.meta.url), 1, run);
  process.exit();
}

await (process.send ? work() : race());
