// A real process that behaves like a service as far as the supervisor can see: used by tests, told what to do by STAND_IN.
import { rmSync } from "node:fs";
import { Socket } from "node:net";

const behaviour = process.env["STAND_IN"] ?? "ready";
const pipe = new Socket({ fd: 3 });
pipe.on("close", () => {
  rmSync(process.env["MOEVIE_RUN_DIR"] ?? "", { recursive: true, force: true });
  process.exit(1);
});
pipe.resume();

process.on("SIGTERM", () => {
  if (behaviour !== "stubborn") process.exit(0);
});

if (behaviour === "fails") {
  pipe.write(`${JSON.stringify({ failed: "the device cuda:7 is not there" })}\n`, () => process.exit(1));
} else if (behaviour === "crashes") {
  process.stderr.write(
    `${JSON.stringify({ level: 50, msg: "the socket is too long" })}\n    at frame (file.ts:1:1)\n`,
    () => process.exit(3),
  );
} else if (behaviour !== "silent") {
  pipe.write(`${JSON.stringify({ ready: true, grpc: "127.0.0.1:7", http: "unix:/h" })}\n`);
}
