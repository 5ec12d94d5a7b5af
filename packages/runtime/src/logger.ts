// JSON logs, or readable lines on a terminal. Prompts never get here: callers pass ids.
import { pino, type Logger } from "pino";

export type { Logger };

export interface LoggerOptions {
  readonly service: string;
  readonly level: string;
  readonly format: "json" | "pretty";
}

/** A logger that writes to stderr, synchronously, so that the last line before an exit is not lost. */
export async function createLogger(options: LoggerOptions): Promise<Logger> {
  const base = {
    level: options.level,
    base: { service: options.service, pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
  };
  if (options.format === "json") return pino(base, pino.destination({ dest: 2, sync: true }));
  const { default: pretty } = await import("pino-pretty");
  return pino(
    base,
    pretty({
      destination: 2,
      sync: true,
      colorize: process.stderr.isTTY,
      ignore: "pid",
      messageFormat: "[{service}] {msg}",
    }),
  );
}
