/* One run of one contender in JavaScript: what contest.py does, in the same words. */
import { fork } from "node:child_process";
import { once } from "node:events";

const WARM_UP = 200;

/** Seconds since 1970, as finely as the clock tells. */
export const now = () => (performance.timeOrigin + performance.now()) / 1000;

export const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** The numbers below `count`. */
export const numbers = (count) => Array.from({ length: count }, (_, i) => i);

export const sum = (values) => values.reduce((a, b) => a + b, 0);

/** Throw if that is not the sum of what all calls return. */
export function check(total, count) {
  if (total !== count * (count - 1)) throw new Error(`${total} is not the sum of ${count} results`);
}

/** Start so many workers in processes of their own; call `run` to warm up, and to measure. */
export async function contest(script, copies, run) {
  const workers = numbers(copies).map(() => fork(script, process.argv.slice(2), { stdio: [0, 2, 2, "ipc"] }));
  for (const worker of workers) {
    worker.on("exit", (code) => process.exit(code || 1)); // It is not to end before it is told to.
    await once(worker, "message");
  }
  await run(WARM_UP);
  await sleep(1);
  const timing = await run(Number(process.argv[2]));
  console.log(JSON.stringify(timing));
  for (const worker of workers) {
    worker.removeAllListeners("exit");
    worker.kill();
    await once(worker, "exit");
  }
}
