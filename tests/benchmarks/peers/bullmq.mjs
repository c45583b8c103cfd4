/* BullMQ's flow on Redis: a parent that waits for its children, and reads what they returned.

   One worker process: with a second one it is slower on two cores. */
import { fileURLToPath } from "node:url";
import { FlowProducer, QueueEvents, Worker } from "bullmq";
import { check, contest, now, numbers, sum } from "./contest.mjs";

const url = new URL(process.env.REDIS_URL);
const connection = {
  host: url.hostname,
  port: Number(url.port || 6379),
  db: Number(url.pathname.slice(1)),
  maxRetriesPerRequest: null,
};
const CONCURRENCY = 100;

async function work() {
  const add = async ({ data: [x, y] }) => x + y;
  const total = async (job) => {
    const values = Object.values(await job.getChildrenValues());
    return { began: now(), total: sum(values) };
  };
  const workers = [
    new Worker("add", add, { connection, concurrency: CONCURRENCY }),
    new Worker("total", total, { connection }),
  ];
  await Promise.all(workers.map((worker) => worker.waitUntilReady()));
  process.send("ready");
}

async function race() {
  const producer = new FlowProducer({ connection });
  const events = new QueueEvents("total", { connection });
  await events.waitUntilReady();

  const run = async (count) => {
    const began = now();
    const children = numbers(count).map((i) => ({ name: "add", queueName: "add", data: [i, i] }));
    const { job } = await producer.add({ name: "total", queueName: "total", children });
    const enqueued = now();
    const result = await job.waitUntilFinished(events);
    check(result.total, count);
    return { enqueue: enqueued - began, whole: result.began - began };
  };

  await contest(fileURLToPath(import.meta.url), 1, run);
  process.exit();
}

await (process.send ? work() : race());
