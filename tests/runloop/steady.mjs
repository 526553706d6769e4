// Makes, reads, changes and deletes secrets until standard input ends, with the SDK's own retries; prints how many.
import Runloop from "@runloop/api-client";

const api = new Runloop();
let ended = false;
process.stdin.on("end", () => (ended = true)).resume();
let count = 0;
for (; !ended; count++) {
  const name = `TYPESCRIPT_${count}`;
  const made = await api.secrets.create({ name, value: "v" });
  await api.secrets.update(name, { value: "w" });
  const found = await api.secrets.retrieve(name);
  if (found.id !== made.id) throw new Error(`${name} became another`);
  await api.secrets.delete(name).catch((error) => {
    if (!(error instanceof Runloop.NotFoundError)) throw error; // a retry's, where the first try was not answered
  });
}
console.log(count);
process.exit(); // the SDK's connections would keep it
