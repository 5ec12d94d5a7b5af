// Addresses of peers that come and go: a list may name numbered ones that are not there yet. A number is a peer's place for good; nobody
// is ever numbered anew.
import { lookup } from "node:dns/promises";
import { connect, isIP } from "node:net";
import { MoevieError } from "@moevie/contracts";
import { parseAddress } from "./address.ts";

export interface PeerAddress {
  readonly address: string;
  /** It is one of a numbered row, and may not be there. */
  readonly numbered: boolean;
}

/** Peers of one list, those that are not there counted. */
const PEERS_MAX = 4096;
/** Numbers beyond the highest known one that are looked for: pods of a StatefulSet come in any order. */
const AHEAD = 4;
const ROW = /\{(\d{1,4})-(\d{1,4})\}/;

/**
 * Every address that `list` names: `shard-{0-63}.shards:7900` stands for 64 of them, and so does a number in the path of a socket. Throws
 * CONFIG_INVALID that names `setting`.
 */
export function expandAddresses(list: readonly string[], setting: string): readonly PeerAddress[] {
  const peers = list.flatMap((entry): PeerAddress[] => {
    const [row, first, last] = ROW.exec(entry) ?? [];
    if (row === undefined) {
      parseAddress(entry, setting);
      return [{ address: entry, numbered: false }];
    }
    const [from, to] = [Number(first), Number(last)];
    const all = Array.from({ length: Math.max(0, to - from + 1) }, (_, at) => entry.replace(row, String(from + at)));
    const parsed = all.map((address) => parseAddress(address, setting));
    // Whether somebody is at a number of an address or at a port cannot be seen without calling there.
    const visible = (each: (typeof parsed)[number]): boolean => each.kind === "unix" || isIP(each.host) === 0;
    const inPort = entry.indexOf(row) > entry.lastIndexOf(":") && !entry.startsWith("unix:");
    if (all.length > 0 && !inPort && parsed.every(visible)) return all.map((address) => ({ address, numbered: true }));
    const allowed = "{FROM-TO}, rising, in a host's name or in the path of a socket";
    throw new MoevieError("CONFIG_INVALID", `${setting} has "${entry}"; allowed: ${allowed}`);
  });
  const rows = list.filter((entry) => ROW.test(entry)).length;
  if (peers.length > 0 && peers.length <= PEERS_MAX && rows <= 1) return peers;
  const allowed = `1 to ${PEERS_MAX} addresses, one row of numbered ones at most`;
  throw new MoevieError("CONFIG_INVALID", `${setting} is "${list.join(",")}"; allowed: ${allowed}`);
}

/**
 * Places of `peers` that are there now and were not `known`: as `isPeerThere` says. Looks a few numbers ahead
 * of those known, at the whole row while there are none: its first ones may be away.
 */
export async function newPeers(peers: readonly PeerAddress[], known: ReadonlySet<number>): Promise<readonly number[]> {
  const highest = Math.max(-1, ...[...known].filter((at) => peers[at]?.numbered === true));
  const last = highest < 0 ? Infinity : highest + AHEAD;
  const looked = peers.flatMap(({ numbered }, at) => (numbered && !known.has(at) && at <= last ? [at] : []));
  const there = await Promise.all(looked.map((at) => isPeerThere(peers[at]?.address ?? "")));
  return looked.filter((_, at) => there[at]);
}

/** Whether the name resolves, or somebody listens on the socket file: one that was killed leaves the file. */
export async function isPeerThere(text: string): Promise<boolean> {
  const address = parseAddress(text, "address");
  if (address.kind === "unix") return accepts(address.path);
  return lookup(address.host).then(
    () => true,
    () => false,
  );
}

function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
