// Runs a source ahead of its reader, a bounded number of items: how decoding and encoding overlap.

/** Items of `source` in order, at most `itemsMax` made before they are taken. The source is ended when the reader stops. */
export async function* readAhead<T>(source: AsyncIterable<T>, itemsMax: number): AsyncGenerator<T, void> {
  const queue: T[] = [];
  let over = false;
  let failure: { thrown: unknown } | undefined;
  let changed = Promise.withResolvers<void>();
  const signalChange = (): void => {
    changed.resolve();
    changed = Promise.withResolvers<void>();
  };
  const reader = { stopped: false };
  const filling = (async (): Promise<void> => {
    try {
      for await (const item of source) {
        queue.push(item);
        signalChange();
        while (queue.length >= itemsMax && !reader.stopped) await changed.promise;
        if (reader.stopped) break;
      }
    } catch (thrown) {
      failure = { thrown };
    }
    over = true;
    signalChange();
  })();
  try {
    for (;;) {
      const item = queue.shift();
      if (item !== undefined) {
        signalChange();
        yield item;
      } else if (failure !== undefined) throw failure.thrown;
      else if (over) return;
      else await changed.promise;
    }
  } finally {
    reader.stopped = true;
    signalChange();
    await filling;
  }
}
