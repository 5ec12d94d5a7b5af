// The shard's byte credits: one budget over all its streams. A router may have sent at most what it was granted, so the
// request bodies a shard must hold never exceed the budget. Pure: it only says which grants and recalls to send.

/** What the shard must send to a stream: more credit, or a request to give back all but `keepBytes`. */
export type CreditOrder<S> =
  | { readonly kind: "grant"; readonly stream: S; readonly bytes: number }
  | { readonly kind: "recall"; readonly stream: S; readonly keepBytes: number };

interface Account {
  /** Granted and not yet returned, spent or not. */
  outstandingBytes: number;
  /** Of those, what the router has not spent yet. */
  unspentBytes: number;
  /** The stream is gone; what it spent is not yet done with. */
  closed: boolean;
}

export class CreditLedger<S> {
  readonly #budgetBytes: number;
  readonly #accounts = new Map<S, Account>();

  constructor(budgetBytes: number) {
    this.#budgetBytes = budgetBytes;
  }

  /** The share of the budget each open stream is due. */
  get shareBytes(): number {
    return Math.floor(this.#budgetBytes / Math.max(1, this.#openAccounts().length));
  }

  get outstandingBytes(): number {
    let sum = 0;
    for (const account of this.#accounts.values()) sum += account.outstandingBytes;
    return sum;
  }

  /** A new stream: the others are asked for what they hold above the new share. */
  open(stream: S): CreditOrder<S>[] {
    this.#accounts.set(stream, { outstandingBytes: 0, unspentBytes: 0, closed: false });
    const orders: CreditOrder<S>[] = [];
    for (const [other, account] of this.#openAccounts()) {
      if (account.outstandingBytes > this.shareBytes) {
        orders.push({ kind: "recall", stream: other, keepBytes: this.shareBytes });
      }
    }
    return [...orders, ...this.#grants()];
  }

  /**
   * A stream is gone. What it had not spent is free, and what it spent on a request of `arrivingBytes` that will never be whole; the rest
   * once its requests are settled: their bodies are still held.
   */
  close(stream: S, arrivingBytes = 0): CreditOrder<S>[] {
    const account = this.#accounts.get(stream);
    if (account === undefined) return [];
    account.outstandingBytes -= account.unspentBytes + arrivingBytes;
    account.unspentBytes = 0;
    account.closed = true;
    if (account.outstandingBytes === 0) this.#accounts.delete(stream);
    return this.#grants();
  }

  /** A request of `bytes` came in. False when the router had not that much credit: the request must be refused. */
  spend(stream: S, bytes: number): boolean {
    const account = this.#accounts.get(stream);
    if (account === undefined || account.unspentBytes < bytes) return false;
    account.unspentBytes -= bytes;
    return true;
  }

  /** A spent request of `bytes` is done with. */
  settle(stream: S, bytes: number): CreditOrder<S>[] {
    const account = this.#accounts.get(stream);
    if (account !== undefined) account.outstandingBytes -= bytes;
    if (account?.closed === true && account.outstandingBytes === 0) this.#accounts.delete(stream);
    return this.#grants();
  }

  /** The router gave unspent credit back. False when it gave back more than it had. */
  giveBack(stream: S, bytes: number): CreditOrder<S>[] | false {
    const account = this.#accounts.get(stream);
    if (account === undefined || account.unspentBytes < bytes) return false;
    account.unspentBytes -= bytes;
    account.outstandingBytes -= bytes;
    return this.#grants();
  }

  #openAccounts(): [S, Account][] {
    return [...this.#accounts].filter(([, account]) => !account.closed);
  }

  /** Free credit goes to the streams below their share, the poorest first. */
  #grants(): CreditOrder<S>[] {
    let free = this.#budgetBytes - this.outstandingBytes;
    const share = this.shareBytes;
    const orders: CreditOrder<S>[] = [];
    const poorestFirst = this.#openAccounts().sort((a, b) => a[1].outstandingBytes - b[1].outstandingBytes);
    for (const [stream, account] of poorestFirst) {
      const bytes = Math.min(share - account.outstandingBytes, free);
      if (bytes <= 0) continue;
      account.outstandingBytes += bytes;
      account.unspentBytes += bytes;
      free -= bytes;
      orders.push({ kind: "grant", stream, bytes });
    }
    return orders;
  }
}
