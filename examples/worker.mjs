#!/usr/bin/env node
// A worker for asyncq: one process that runs call after call. docs/protocol.md is what it follows.
import { spawnSync } from 'node:child_process';
import { Socket } from 'node:net';

class Conflict extends Error { code = 75; } // what a function throws to be tried again
class CannotRun extends Error { code = 127; } // a call that could not be begun
const functions = new Map(Object.entries({ // keyword arguments come as an object, after the others
  heavy_computing: (a, b) => a * b,
  hello: (name) => { console.log('Hello', name); },
  fails: () => { throw new Error('it does not work'); },
  conflicts: () => { throw new Conflict('write conflict'); },
  who: () => { spawnSync('asyncq', ['whoami'], { stdio: 'inherit' }); },
}));

function run({ job, token, principal, function: name, args, kwargs }) {
  if (!functions.has(name)) throw new CannotRun(`this worker has no function \`${name}\``);
  // For `asyncq` in programs that the function starts: it has to know whose call it is in.
  Object.assign(process.env, { ASYNCQ_JOB: job, ASYNCQ_TOKEN: token, ASYNCQ_PRINCIPAL: principal });
  if (principal === null) delete process.env.ASYNCQ_PRINCIPAL;
  return functions.get(name)(...args, kwargs);
}
const line = (message) => JSON.stringify({ jsonrpc: '2.0', ...message }) + '\n';
const told = (error) => { // anything can be thrown, also what cannot be shown
  try {
    console.error(error); // on Linux, what the console writes is written when it returns: nothing to flush
    return String(error);
  } catch { return 'threw what cannot be shown'; }
};
const answer = async (id, call) => {
  try {
    return line({ id, result: { value: await run(call) } }); // a value that is no JSON is an error too
  } catch (error) {
    return line({ id, error: { code: Number.isSafeInteger(error?.code) ? error.code : 1, message: told(error) } });
  }
};
const asyncq = new Socket({ fd: Number(process.env.ASYNCQ_WORKER) }).setEncoding('utf8');
asyncq.write(line({ id: 0, method: 'hello', params: { protocol: 1, functions: [...functions.keys()] } }));
let rest = ''; // not node:readline, for which U+2028 inside a text ends a line
for await (const chunk of asyncq) {
  const lines = (rest + chunk).split('\n');
  rest = lines.pop();
  for (const { method, id, params } of lines.map((text) => JSON.parse(text)))
    if (method === 'call') asyncq.write(await answer(id, params));
}
process.exit(0); // whatever timers functions have left
