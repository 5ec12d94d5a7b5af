// The pipe to the supervisor (file descriptor 3): says ready or failed upwards, ends the process when the supervisor is gone.
import { rmSync } from "node:fs";
import { Socket } from "node:net";

export interface Supervision {
  ready(addresses: { readonly grpc: string; readonly http: string }): void;
  failed(publicText: string): void;
}

/** Holds the pipe. `runDir` is removed when the supervisor dies: it can no longer do it itself. */
export function superviseBy(fd: number, runDir: string): Supervision {
  const pipe = new Socket({ fd, readable: true, writable: true });
  const orphaned = (): void => {
    if (runDir !== "") rmSync(runDir, { recursive: true, force: true, maxRetries: 3 });
    process.exit(1);
  };
  pipe.on("end", orphaned);
  pipe.on("close", orphaned);
  pipe.on("error", orphaned);
  pipe.resume();
  const say = (message: object): void => void pipe.write(`${JSON.stringify(message)}\n`);
  return {
    ready: (addresses) => say({ ready: true, ...addresses }),
    failed: (publicText) => say({ failed: publicText }),
  };
}

/** A process that nobody supervises. */
export const UNSUPERVISED: Supervision = { ready: () => undefined, failed: () => undefined };
