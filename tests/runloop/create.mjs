// Creates a secret with a value of the given number of bytes. Prints the secret's name, or the status of the error, or
// "none" if it has no status. The second argument is the number of retries; the default is none.
import Runloop from "@runloop/api-client";

const [bytes, maxRetries = "0"] = process.argv.slice(2);
const api = new Runloop({ maxRetries: Number(maxRetries), timeout: 10_000 });
await api.secrets.create({ name: "LARGE", value: "v".repeat(Number(bytes)) }).then(
  (secret) => console.log(secret.name),
  (error) => console.log(error.status ?? "none"),
);
process.exit();
