// Creates a secret with a value of so many bytes, without the SDK's retries unless their number is given too; prints
// the status of the error, or "none" where it has none, or the secret's name.
import Runloop from "@runloop/api-client";

const [bytes, maxRetries = "0"] = process.argv.slice(2);
const api = new Runloop({ maxRetries: Number(maxRetries), timeout: 10_000 });
await api.secrets.create({ name: "LARGE", value: "v".repeat(Number(bytes)) }).then(
  (secret) => console.log(secret.name),
  (error) => console.log(error.status ?? "none"),
);
process.exit();
