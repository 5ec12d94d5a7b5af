// Notices a peer that fell silent: a host that lost power or its network sends neither data nor an end.
import type { Socket } from "node:net";
import { startTimer } from "./timer.ts";

/**
 * Looks at `socket` twice in `silenceMs`: after a half without a byte `ping` is called, which should make the peer answer; after another the
 * socket is destroyed. Ends with the socket.
 */
export function watchSilence(socket: Socket, silenceMs: number, ping: () => void): void {
  let seenBytes = 0;
  let asked = false;
  const look = (): void => {
    const silent = socket.bytesRead === seenBytes;
    seenBytes = socket.bytesRead;
    if (silent && asked) socket.destroy();
    else if (silent) ping();
    asked = silent;
    stopTimer = startTimer(silenceMs / 2, look);
  };
  let stopTimer = startTimer(silenceMs / 2, look);
  socket.on("close", () => stopTimer());
}
