// @ts-check
/** Masks as PNG files. The canvas cannot write them: it loses colours where alpha is zero. */

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const RGBA = [8, 6, 0, 0, 0]; // bit depth; colour type; compression, filter and interlace methods

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? 0xedb88320 ^ (crc >>> 1) : crc >>> 1;
  return crc;
});

/**
 * A mask that ComfyUI's loaders read from any channel: red, green and blue hold the values. Alpha
 * holds one minus the values, because the loaders take 1 - alpha.
 *
 * @param {ArrayLike<number>} values 0 to 1, row by row
 * @param {number} height
 * @param {number} width
 * @returns {Promise<Blob>}
 */
export async function maskPng(values, height, width) {
  const rows = new Uint8Array(height * (1 + 4 * width)); // each row starts with its filter: none
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const byte = Math.round(values[y * width + x] * 255);
      rows.set([byte, byte, byte, 255 - byte], y * (1 + 4 * width) + 1 + 4 * x);
    }
  }
  const zlib = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(zlib).arrayBuffer());
  const header = [...bigEndian(width), ...bigEndian(height), ...RGBA];
  return new Blob(
    [
      Uint8Array.from(SIGNATURE),
      chunk("IHDR", Uint8Array.from(header)),
      chunk("IDAT", data),
      chunk("IEND", new Uint8Array()),
    ],
    { type: "image/png" },
  );
}

/**
 * @param {string} kind
 * @param {Uint8Array} data
 */
function chunk(kind, data) {
  const body = new Uint8Array([...new TextEncoder().encode(kind), ...new Uint8Array(data.length)]);
  body.set(data, 4);
  const crc = body.reduce((sum, byte) => CRC[(sum ^ byte) & 255] ^ (sum >>> 8), 0xffffffff);
  return new Blob([
    Uint8Array.from(bigEndian(data.length)),
    body,
    Uint8Array.from(bigEndian(~crc >>> 0)),
  ]);
}

/** @param {number} number */
function bigEndian(number) {
  return [24, 16, 8, 0].map((bits) => (number >>> bits) & 255);
}
