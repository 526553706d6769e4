// Creates, updates, reads and deletes secrets until standard input ends, with the SDK's own retries. Each call must
// return the right secret within the given number of seconds. Prints a tally of the calls as JSON.
import Runloop from "@runloop/api-client";

const seconds = Number(process.argv[2]);
const loops = Number(process.argv[3]);
const api = new Runloop();
const tally = { calls: 0, longest: 0, failures: {} };
let ended = false;
process.stdin.on("end", () => (ended = true)).resume();

const call = async (what, made, expected) => {
  const started = performance.now();
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no response within ${seconds} s`)), seconds * 1000);
  });
  try {
    const secret = await Promise.race([made(), late]);
    if (secret.name !== expected.name || (expected.id ?? secret.id) !== secret.id) throw new Error("another secret");
    return secret;
  } catch (error) {
    const kind = `${what}: ${error.status ?? `${error.message} ${error.cause?.message ?? ""}`}`;
    tally.failures[kind] = (tally.failures[kind] ?? 0) + 1;
    throw error;
  } finally {
    clearTimeout(timer);
    tally.calls++;
    tally.longest = Math.max(tally.longest, (performance.now() - started) / 1000);
  }
};

const loop = async (number) => {
  for (let count = 0; !ended; count++) {
    const name = `TYPESCRIPT_${number}_${count}`;
    try {
      const made = await call("create", () => api.secrets.create({ name, value: "v" }), { name });
      await call("update", () => api.secrets.update(name, { value: "w" }), made);
      await call("retrieve", () => api.secrets.retrieve(name), made);
      await call("delete", () => api.secrets.delete(name), made);
    } catch {
      continue; // the failure was counted
    }
  }
};
await Promise.all(Array.from({ length: loops }, (_, number) => loop(number)));
console.log(JSON.stringify(tally));
process.exit(); // the SDK's open connections would keep the process running
