// Preloaded with --import into every process the CLI starts: watches the parent before the first line of the program is loaded.
// Loads nothing else, so that it costs next to nothing.
import { isMainThread } from "node:worker_threads";
import { parentPipe } from "./parent-pipe.ts";

// Threads are given the same arguments as their process, which watches for them.
if (isMainThread) parentPipe(process.env["MOEVIE_RUN_DIR"] ?? "");
