// What happens when the supervisor's process ends without having stopped its cluster: an uncaught error, process.exit.
// Synchronous by nature: kills every child's group and removes the run folder. A SIGKILL of the supervisor is the children's business.
import { removeRunFolder } from "./run-folder.ts";
import type { ServiceProcess } from "./service-process.ts";

interface Holding {
  readonly runDir: string;
  readonly processes: () => Iterable<ServiceProcess>;
}

const holdings = new Set<Holding>();
let armed = false;

function releaseAll(): void {
  for (const holding of holdings) {
    for (const process of holding.processes()) process.kill();
    removeRunFolder(holding.runDir);
  }
}

/** Guards a run folder and its children until the returned function is called. */
export function guardAtExit(holding: Holding): () => void {
  if (!armed) process.on("exit", releaseAll);
  armed = true;
  holdings.add(holding);
  return () => void holdings.delete(holding);
}
