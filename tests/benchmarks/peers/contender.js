// The same line protocol as contender.py, for contenders in Node.
import { createInterface } from "node:readline";

export const REDIS = new URL(process.env.PEERS_REDIS ?? "redis://127.0.0.1:6379");
export const COUNT_OF_WARM_UP = 200;

export async function serve(run) {
  await run(COUNT_OF_WARM_UP);
  console.log("ready");
  for await (const line of createInterface({ input: process.stdin })) {
    const began = Date.now() / 1000;
    const [submitted, called] = await run(Number(line));
    console.log(JSON.stringify({ enqueue: submitted - began, whole: called - began }));
  }
}

export function check(total, count) {
  if (total !== count * (count - 1)) throw new Error(`${total} is not the sum of ${count} results`);
}
