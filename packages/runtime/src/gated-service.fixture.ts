// A service that waits where its test wants it to: a process of its own for run-service.test.ts. Fixture only.
// Lines on stdin go on: the first ends the start, the second the call under way. MOEVIE_LOG_LEVEL etc. are as in any service.
import { createInterface } from "node:readline";
import { implement } from "./grpc-server.ts";
import { runService } from "./service.ts";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (text: string): void => void process.stdout.write(`${text}\n`);

runService({
  name: "text-encoder",
  async start({ signal }) {
    say("starting");
    const { value } = await lines.next();
    if (value === "reject") void Promise.reject(new Error("nobody waits for this"));
    signal.addEventListener("abort", () => say("told to drain"));
    const encoder = implement("moevie.v1.TextEncoderService", {
      async Encode() {
        say("called");
        await lines.next();
        return { contexts: [] };
      },
    });
    return {
      grpc: [encoder],
      close: () => {
        say("closed");
        return Promise.resolve();
      },
    };
  },
});
