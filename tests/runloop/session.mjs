// Calls everything that Runloop's TypeScript SDK offers for secrets, by name and by id. Prints the results as JSON.
import Runloop from "@runloop/api-client";

const api = new Runloop({ maxRetries: 1 }); // configured by RUNLOOP_BASE_URL and RUNLOOP_API_KEY
const made = [];
for (const name of ["FIRST", "SECOND", "THIRD"]) made.push(await api.secrets.create({ name, value: "v" }));

const pages = [];
let after;
do {
  const page = await api.secrets.list({ limit: 2, ...(after && { starting_after: after }) });
  pages.push(page.secrets.map((secret) => secret.name));
  after = page.has_more ? page.secrets.at(-1).id : undefined;
} while (after);

const updated = await api.secrets.update("SECOND", { value: "w" });
const found = await api.secrets.retrieve("SECOND");
// The SDK has no methods by id.
const byId = await api.get(`/v1/secrets/id/${found.id}`);
const updatedById = await api.post(`/v1/secrets/id/${found.id}/update`, { body: { value: "x" } });
const rejected = await api.secrets.create({ name: "FIRST", value: "v" }).catch((error) => [error.status, error.error]);
const deleted = [await api.secrets.delete("FIRST", {})];
deleted.push(await api.post(`/v1/secrets/id/${found.id}/delete`));
deleted.push(await api.secrets.delete("THIRD"));
const missing = await api.secrets.retrieve("FIRST").catch((error) => error.status);
const remaining = await api.secrets.list();

console.log(JSON.stringify({ made, pages, updated, found, byId, updatedById, rejected, deleted, missing, remaining }));
