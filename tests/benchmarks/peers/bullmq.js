// BullMQ's flow on Redis: a parent with as many children, whose results it asks for itself.
// One worker process that takes a hundred jobs at once: tasks that do next to nothing are no faster
// on a second one. Finished jobs are kept for as long as their parent needs them.
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { FlowProducer, QueueEvents, Worker } from "bullmq";
import { Redis } from "ioredis";
import { REDIS, check, serve } from "./contender.js";

const connection = new Redis({
  host: REDIS.hostname,
  port: Number(REDIS.port || 6379),
  db: 14,
  maxRetriesPerRequest: null,
});
const WORKER = "worker";

function work() {
  process.on("disconnect", () => process.exit(0));
  const options = { connection, concurrency: 100 };
  new Worker("children", async (job) => job.data.x + job.data.y, options);
  new Worker(
    "parents",
    async (job) => {
      const numbers = Object.values(await job.getChildrenValues());
      const began = Date.now() / 1000;
      return { began, total: numbers.reduce((sum, number) => sum + number, 0) };
    },
    { connection },
  );
}

async function main() {
  await connection.flushdb();
  const child = fork(fileURLToPath(import.meta.url), [WORKER]);
  const flows = new FlowProducer({ connection });
  const events = new QueueEvents("parents", { connection });
  await events.waitUntilReady();
  await serve(async (count) => {
    const children = Array.from({ length: count }, (_, i) => ({
      name: "add",
      queueName: "children",
      data: { x: i, y: i },
    }));
    const { job } = await flows.add({ name: "total", queueName: "parents", children });
    const submitted = Date.now() / 1000;
    const { began, total } = await job.waitUntilFinished(events);
    check(total, count);
    return [submitted, began];
  });
  process.exit(0);
}

if (process.argv[2] === WORKER) work();
else await main();
