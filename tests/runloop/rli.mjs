// Makes the SDK calls of Runloop's command line, `rli secret create|list|get|update|delete [NAME]`: with two retries, the
// value from standard input, `get` as a list of 5,000 secrets, and pages by the last id. Prints JSON.
import { text } from "node:stream/consumers";
import Runloop from "@runloop/api-client";

const api = new Runloop({ maxRetries: 2, timeout: 10_000 });
const [verb, name] = process.argv.slice(2);

const pages = async (limit) => {
  const found = [];
  let page;
  do {
    page = await api.secrets.list({ limit, ...(found.length && { starting_after: found.at(-1).id }) });
    found.push(...page.secrets);
  } while (page.has_more);
  return found;
};

const calls = {
  create: async () => api.secrets.create({ name, value: await text(process.stdin) }),
  list: () => pages(2),
  get: async () => (await api.secrets.list({ limit: 5000 })).secrets.find((secret) => secret.name === name),
  update: async () => api.secrets.update(name, { value: await text(process.stdin) }),
  delete: () => api.secrets.delete(name),
};
console.log(JSON.stringify(await calls[verb]()));
