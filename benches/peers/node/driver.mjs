// plainjob on better-sqlite3: `node driver.mjs MEASURE COUNT FOLDER SYNC`; prints one line of JSON.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { better, defineQueue, defineWorker, JobStatus } from "plainjob";

const [measure, words, folder, sync] = process.argv.slice(2);
const count = Number(words);
const database = new Database(join(folder, "queue.db"));
const logger = { error: console.error, warn: console.error, info() {}, debug() {} };
const queue = defineQueue({ connection: better(database), logger });
if (sync !== "own") database.pragma(`synchronous = ${sync}`); // after the queue has set its own

const measures = {
  each() {
    for (let number = 0; number < count; number++) queue.add("noop", [number, 7]);
    return JobStatus.Pending;
  },
  bulk() {
    for (let first = 0; first < count; first += 1000) {
      const length = Math.min(1000, count - first);
      queue.addMany("noop", Array.from({ length }, (_, index) => [first + index, 7]));
    }
    return JobStatus.Pending;
  },
  future() {
    const year = 365 * 24 * 3600 * 1000;
    queue.addMany("noop", Array.from({ length: count }, (_, index) => [index, 7]), { delay: year });
    return JobStatus.Pending;
  },
  async drain() {
    let ran = 0;
    const done = () => { if (++ran === count) worker.stop(); };
    const worker = defineWorker("noop", async (job) => { JSON.parse(job.data); }, { queue, logger, onCompleted: done });
    await worker.start();
    return JobStatus.Done;
  },
  // What its worker does for each job, and no worker.
  "claim-1"() {
    for (let number = 0; number < count; number++) {
      const { id } = queue.getAndMarkJobAsProcessing("noop");
      queue.getJobById(id);
      queue.markJobAsDone(id);
    }
    return JobStatus.Done;
  },
  empty() {
    for (let number = 0; number < count; number++) {
      if (queue.getAndMarkJobAsProcessing("noop")) throw new Error("something is due");
    }
  },
};

const began = performance.now();
const state = await measures[measure]();
const seconds = (performance.now() - began) / 1000;
if (state !== undefined && queue.countJobs({ status: state }) !== count) throw new Error("not all are there");
const kib = Number(/VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1]);
console.log(JSON.stringify({ seconds, kib }));
queue.close();
