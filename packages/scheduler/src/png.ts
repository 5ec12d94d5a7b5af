// The smallest PNG encoder that is a PNG encoder: 8-bit RGB, one IDAT, no filter. Pure. Format: W3C PNG (third edition).
import { crc32, deflateSync } from "node:zlib";

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const BIT_DEPTH = 8;
const COLOUR_RGB = 2;

/** `rgb` [height, width, 3] as PNG bytes. Throws RangeError when the sizes do not fit. */
export function encodePng(rgb: Uint8Array, width: number, height: number): Uint8Array {
  const rowBytes = width * 3;
  if (rgb.length !== rowBytes * height) throw new RangeError(`${rgb.length} bytes for ${width} x ${height} RGB`);
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([BIT_DEPTH, COLOUR_RGB], 8);
  // Every row begins with its filter: 0, none.
  const rows = Buffer.alloc((rowBytes + 1) * height);
  for (let y = 0; y < height; y++) rows.set(rgb.subarray(y * rowBytes, (y + 1) * rowBytes), y * (rowBytes + 1) + 1);
  return Buffer.concat([
    SIGNATURE,
    chunk("IHDR", header),
    chunk("IDAT", deflateSync(rows)),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

function chunk(type: string, data: Uint8Array): Buffer {
  const typed = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const out = Buffer.alloc(typed.length + 8);
  out.writeUInt32BE(data.length, 0);
  out.set(typed, 4);
  out.writeUInt32BE(crc32(typed), typed.length + 4);
  return out;
}
