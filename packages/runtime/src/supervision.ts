// The pipe to the supervisor: says ready or failed upwards, ends the process when the supervisor is gone.
import { parentPipe } from "./parent-pipe.ts";

export interface Supervision {
  ready(addresses: { readonly grpc: string; readonly http: string }): void;
  failed(publicText: string): void;
}

/** Holds the pipe. `runDir` is removed when the supervisor dies: it can no longer do it itself. */
export function superviseBy(runDir: string): Supervision {
  const pipe = parentPipe(runDir);
  const say = (message: object): void => void pipe.write(`${JSON.stringify(message)}\n`);
  return {
    ready: (addresses) => say({ ready: true, ...addresses }),
    failed: (publicText) => say({ failed: publicText }),
  };
}

/** A process that nobody supervises. */
export const UNSUPERVISED: Supervision = { ready: () => undefined, failed: () => undefined };
