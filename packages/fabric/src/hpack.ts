// HPACK (RFC 7541): header lists of the exchange's HTTP/2 link. The decoder understands what any client sends (static and dynamic
// table, Huffman); the encoder writes plain literals only, so that no state is shared with the peer. Every size is bounded.
import { exchangeError } from "./exchange-error.ts";

/** Names are lower case; a name that occurs twice keeps its last value. */
export type Headers = ReadonlyMap<string, string>;

const TABLE_BYTES_MAX = 4096;
const ENTRY_OVERHEAD_BYTES = 32;
const FIELDS_MAX = 64;
const TEXT_BYTES_MAX = 8192;
const EOS = 256;

/** RFC 7541, appendix A: name=value, from index 1. */
const STATIC_TABLE = (
  ":authority=;:method=GET;:method=POST;:path=/;:path=/index.html;:scheme=http;:scheme=https;:status=200;" +
  ":status=204;:status=206;:status=304;:status=400;:status=404;:status=500;accept-charset=;" +
  "accept-encoding=gzip, deflate;accept-language=;accept-ranges=;accept=;access-control-allow-origin=;age=;" +
  "allow=;authorization=;cache-control=;content-disposition=;content-encoding=;content-language=;" +
  "content-length=;content-location=;content-range=;content-type=;cookie=;date=;etag=;expect=;expires=;from=;" +
  "host=;if-match=;if-modified-since=;if-none-match=;if-range=;if-unmodified-since=;last-modified=;link=;" +
  "location=;max-forwards=;proxy-authenticate=;proxy-authorization=;range=;referer=;refresh=;retry-after=;" +
  "server=;set-cookie=;strict-transport-security=;transfer-encoding=;user-agent=;vary=;via=;www-authenticate="
)
  .split(";")
  .map((entry) => {
    const at = entry.indexOf("=");
    return [entry.slice(0, at), entry.slice(at + 1)] as const;
  });

/** RFC 7541, appendix B: bits of the code of each byte and of EOS. The code is canonical, so lengths say all. */
const HUFFMAN_BITS = (
  "13 23 28 28 28 28 28 28 28 24 30 28 28 30 28 28 28 28 28 28 28 28 30 28 28 28 28 28 28 28 28 28 6 10 10 12 13 6 " +
  "8 11 10 10 8 11 8 6 6 6 5 5 5 6 6 6 6 6 6 6 7 8 15 6 12 10 13 6 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 8 7 " +
  "8 13 19 13 14 6 15 5 6 5 6 5 6 6 6 5 7 7 6 6 6 5 6 7 6 5 5 6 7 7 7 7 7 15 11 14 13 28 20 22 20 20 22 22 22 23 22 " +
  "23 23 23 23 23 24 23 24 24 22 23 24 23 23 23 23 21 22 23 22 23 23 24 22 21 20 22 22 23 23 21 23 22 22 24 21 22 " +
  "23 23 21 21 22 21 23 22 23 23 20 22 22 22 23 22 22 23 26 26 20 19 22 23 22 25 26 26 26 27 27 26 24 25 19 21 26 " +
  "27 27 26 27 24 21 21 26 26 28 27 27 27 20 24 20 21 22 21 21 23 22 22 25 25 24 24 26 23 26 27 26 26 27 27 27 27 " +
  "27 28 27 27 27 27 27 26 30"
)
  .split(" ")
  .map(Number);

/** For each code length its first code, and where its symbols start among the symbols in order of their codes. */
const HUFFMAN = (() => {
  const symbols = HUFFMAN_BITS.map((_, symbol) => symbol).sort(
    (a, b) => (HUFFMAN_BITS[a] ?? 0) - (HUFFMAN_BITS[b] ?? 0) || a - b,
  );
  const levels: { readonly bits: number; readonly code: number; readonly start: number; readonly count: number }[] = [];
  let code = 0;
  for (let start = 0, bits = 0; start < symbols.length;) {
    const next = HUFFMAN_BITS[symbols[start] ?? 0] ?? 0;
    code *= 2 ** (next - bits);
    bits = next;
    const count = symbols.filter((symbol) => HUFFMAN_BITS[symbol] === bits).length;
    levels.push({ bits, code, start, count });
    code += count;
    start += count;
  }
  return { symbols, levels };
})();

/** One direction of a connection: keeps the dynamic table. Throws INVALID_FIELD; the connection is then of no use. */
export class HpackDecoder {
  /** Newest first. */
  readonly #table: (readonly [string, string])[] = [];
  #tableBytes = 0;
  #tableBytesMax = TABLE_BYTES_MAX;
  #block: Uint8Array = new Uint8Array(0);
  #at = 0;

  decode(block: Uint8Array): Headers {
    this.#block = block;
    this.#at = 0;
    const headers = new Map<string, string>();
    let fields = 0;
    while (this.#at < block.length) {
      const first = block[this.#at] as number;
      if ((first & 0xe0) === 0x20) {
        this.#resize(this.#integer(5));
        continue;
      }
      if (++fields > FIELDS_MAX) throw invalid(`more than ${FIELDS_MAX} header fields`);
      const [name, value] = this.#field(first);
      headers.set(name, value);
    }
    return headers;
  }

  #field(first: number): readonly [string, string] {
    if ((first & 0x80) !== 0) return this.#entry(this.#integer(7));
    const indexed = (first & 0xc0) === 0x40;
    const index = this.#integer(indexed ? 6 : 4);
    const field = [index === 0 ? this.#text() : this.#entry(index)[0], this.#text()] as const;
    if (indexed) this.#insert(field);
    return field;
  }

  #entry(index: number): readonly [string, string] {
    const entry = index <= STATIC_TABLE.length ? STATIC_TABLE[index - 1] : this.#table[index - STATIC_TABLE.length - 1];
    if (entry === undefined) throw invalid(`no header at index ${index}`);
    return entry;
  }

  #insert(field: readonly [string, string]): void {
    this.#table.unshift(field);
    this.#tableBytes += entryBytes(field);
    this.#evict();
  }

  #resize(bytes: number): void {
    if (bytes > TABLE_BYTES_MAX) throw invalid(`a header table of ${bytes} bytes, at most ${TABLE_BYTES_MAX}`);
    this.#tableBytesMax = bytes;
    this.#evict();
  }

  #evict(): void {
    while (this.#tableBytes > this.#tableBytesMax) {
      const oldest = this.#table.pop();
      this.#tableBytes -= oldest === undefined ? this.#tableBytes : entryBytes(oldest);
    }
  }

  #integer(prefixBits: number): number {
    const mask = 2 ** prefixBits - 1;
    let value = this.#byte() & mask;
    if (value < mask) return value;
    for (let shift = 0; shift <= 21; shift += 7) {
      const byte = this.#byte();
      value += (byte & 0x7f) << shift;
      if ((byte & 0x80) === 0) return value;
    }
    throw invalid("a header integer is too long");
  }

  #text(): string {
    const huffman = ((this.#block[this.#at] ?? 0) & 0x80) !== 0;
    const length = this.#integer(7);
    if (length > TEXT_BYTES_MAX) throw invalid(`a header text of ${length} bytes, at most ${TEXT_BYTES_MAX}`);
    const bytes = this.#block.subarray(this.#at, this.#at + length);
    if (bytes.length < length) throw invalid("the header block is cut off");
    this.#at += length;
    return Buffer.from(huffman ? huffmanDecode(bytes) : bytes).toString("latin1");
  }

  #byte(): number {
    const byte = this.#block[this.#at++];
    if (byte === undefined) throw invalid("the header block is cut off");
    return byte;
  }
}

function huffmanDecode(bytes: Uint8Array): Uint8Array {
  const out: number[] = [];
  let code = 0;
  let bits = 0;
  let level = 0;
  for (let at = 0; at < bytes.length * 8; at++) {
    code = code * 2 + (((bytes[at >> 3] as number) >> (7 - (at & 7))) & 1);
    bits++;
    while ((HUFFMAN.levels[level]?.bits ?? Infinity) < bits) level++;
    const found = HUFFMAN.levels[level];
    if (found === undefined) throw invalid("a header text has an unknown code");
    if (found.bits !== bits || code - found.code >= found.count) continue;
    const symbol = HUFFMAN.symbols[found.start + code - found.code] as number;
    if (symbol === EOS) throw invalid("a header text contains the end mark");
    out.push(symbol);
    code = bits = level = 0;
  }
  // What is left must be the first bits of EOS: fewer than eight ones.
  if (bits > 7 || code !== 2 ** bits - 1) throw invalid("a header text is padded wrongly");
  return Uint8Array.from(out);
}

/** A header block of literals that enter no table. */
export function encodeHeaders(headers: Iterable<readonly [string, string]>): Buffer {
  const parts: Buffer[] = [];
  for (const [name, value] of headers) parts.push(Buffer.from([0]), encodeText(name), encodeText(value));
  return Buffer.concat(parts);
}

function encodeText(text: string): Buffer {
  const bytes = Buffer.from(text, "latin1");
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const length = [127];
  let rest = bytes.length - 127;
  for (; rest >= 128; rest >>= 7) length.push((rest & 0x7f) | 0x80);
  return Buffer.concat([Buffer.from([...length, rest]), bytes]);
}

function entryBytes([name, value]: readonly [string, string]): number {
  return name.length + value.length + ENTRY_OVERHEAD_BYTES;
}

function invalid(what: string): Error {
  return exchangeError("INVALID_FIELD", `HTTP/2 headers: ${what}`);
}
