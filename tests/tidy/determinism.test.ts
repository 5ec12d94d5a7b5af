// Clocks, timers, randomness and the environment have owners. Anything else takes them as arguments.
import { expect, test } from "vitest";
import { productionSources, withoutComments } from "./source-files.ts";

interface Rule {
  readonly what: string;
  readonly pattern: RegExp;
  /** File → why it may. An entry that is not needed any more fails, too. */
  readonly allowed: Readonly<Record<string, string>>;
}

const RULES: readonly Rule[] = [
  {
    what: "reads the environment",
    pattern: /\bprocess\.env\b/,
    allowed: {
      "packages/runtime/src/service.ts": "hands the raw environment to config.ts, once",
      "packages/runtime/src/parent-watch-main.ts": "runs before anything that could hand it over is loaded",
      "packages/cli/src/config.ts": "the CLI's only reader",
    },
  },
  {
    what: "reads the wall clock",
    pattern: /\bDate\.now\(|\bnew Date\(\)/,
    allowed: {
      "packages/runtime/src/grpc-client.ts": "gRPC deadlines are points in wall clock time",
      "packages/client/src/video-client.ts": "gRPC deadlines are points in wall clock time",
      "packages/job-store/src/sqlite-thread.ts": "times of records, for people; no lease compares them",
      "packages/runtime/src/clock.ts": "the clock of every service that does not need one of its own",
      "packages/cli/src/supervisor/default-bundle.ts": "age of half-built folders, against file times",
    },
  },
  { what: "draws randomness without a seed", pattern: /\bMath\.random\(/, allowed: {} },
  {
    what: "sets a timer",
    pattern: /\bset(Timeout|Interval|Immediate)\(/,
    allowed: {
      "packages/fabric/src/timer.ts": "deadlines of exchanges and of waits for credit, silence of peers",
      "packages/runtime/src/pause.ts": "the pause of every service",
      "packages/job-store/src/sqlite-thread.ts": "polls the file for changes by other processes",
      "packages/runtime/src/grpc-server.ts": "the grace of a closing server",
      "packages/client/src/video-client.ts": "the silence after which a stream counts as dead",
    },
  },
];

test.each(RULES)("no file $what but those that own it", ({ pattern, allowed }) => {
  const found = productionSources()
    .filter((file) => pattern.test(withoutComments(file.text)))
    .map((file) => file.path);
  expect(found.filter((path) => !(path in allowed))).toEqual([]);
  expect(Object.keys(allowed).filter((path) => !found.includes(path))).toEqual([]);
});
