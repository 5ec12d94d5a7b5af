// Loaded before a program that the CLI runs (node --import): ends the process when the CLI is gone, however that ended. The CLI holds the
// other end of file descriptor 3 and never writes to it. Threads and forks of the program load this too; one watcher is enough.
import { Socket } from "node:net";
import { isMainThread } from "node:worker_threads";

if (isMainThread && process.send === undefined) {
  const pipe = new Socket({ fd: 3, readable: true, writable: false });
  pipe.on("error", () => process.exit(1));
  pipe.on("close", () => process.exit(1));
  pipe.resume();
  pipe.unref();
}
