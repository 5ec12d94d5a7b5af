// Ends this process when its parent is gone: the parent holds the other end of file descriptor 3.
import { rmSync } from "node:fs";
import { Socket } from "node:net";

const PARENT_FD = 3;

let pipe: Socket | undefined;

/**
 * The pipe to the parent, opened once a process; it keeps no process alive. `folder`, unless it is "", is removed when the
 * parent is gone, which can no longer do it itself.
 */
export function parentPipe(folder: string): Socket {
  if (pipe !== undefined) return pipe;
  pipe = new Socket({ fd: PARENT_FD, readable: true, writable: true });
  const orphaned = (): void => {
    if (folder !== "") rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
    process.exit(1);
  };
  for (const event of ["end", "close", "error"]) pipe.on(event, orphaned);
  pipe.resume();
  pipe.unref();
  return pipe;
}
