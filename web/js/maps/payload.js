// @ts-check
/** The viewer's payload → header and tables. Its layout is that of i2am/display/payload.py. */

export const FORMAT = "i2am.viewer/1";
const MAGIC = "I2AMVIEW";
const START = MAGIC.length + 4; // of the header, which follows its length

const TYPES = { u1: Uint8Array, u2: Uint16Array, f4: Float32Array };

/** What is wrong with a payload, in words for the user. */
export class PayloadError extends Error {}

/**
 * One array as it was sent: value = data × scale.
 *
 * @typedef {object} Table
 * @property {Uint8Array | Uint16Array | Float32Array} data
 * @property {number[]} shape
 * @property {number | number[]} scale one, or one per index of the first `per` axes
 * @property {number} per
 */

/**
 * @typedef {object} Side
 * @property {[number, number]} grid cells down and across
 * @property {[number, number]} covered cells down and across that the picture covers
 * @property {[number, number]} size of the picture in pixels, height first
 * @property {number} frames
 * @property {number[]} [frame_of] for a video with pictures, the latent frame of each
 * @property {Whole} [whole] set if the model saw a part; other fields describe the part
 */

/**
 * @typedef {object} Whole
 * @property {[number, number]} size in pixels, height first
 * @property {[number, number, number, number]} part top, left, height, width in pixels
 */

/**
 * @typedef {object} Match
 * @property {[number, number]} rows
 * @property {[number, number]} rows_covered
 * @property {[number, number]} columns
 * @property {[number, number]} columns_covered
 */

/**
 * @typedef {Side & {kind: string, has_places: boolean, label: string, absent?: boolean}} Reference
 */

/**
 * @typedef {object} Header
 * @property {string} model
 * @property {number | null} seed
 * @property {boolean} probed whether its steps are noise levels of a finished picture
 * @property {number} batch
 * @property {boolean} joint
 * @property {boolean} within
 * @property {"paper" | "model" | "effect"} definition
 * @property {("paper" | "model" | "effect")[]} definitions those that were recorded
 * @property {{label: string, sigma: number, count: number}[]} steps
 * @property {{label: string, count: number, block: string, tokens: number}[]} layers
 * @property {(number | null)[]} official for each layer, the number of its matrices, if any
 * @property {number[]} heads
 * @property {number[][]} seen
 * @property {Side} generated
 * @property {Reference[]} references at least one: without any, a stand-in that is `absent`
 * @property {{text: number[], self: number[], references: number[][]}} share
 * @property {(Match | null)[]} correspondence
 * @property {Record<string, string>} colormaps
 * @property {{definitions: Record<string, string>, units: Record<string, string>}} texts
 * @property {string[]} pooled
 * @property {{text: string, weight: number, share: number[]}[]} words of the prompt
 * @property {{grid: [number, number], covered: [number, number]} | null} word_grid
 * @property {boolean} words_apart whether words have a softmax of their own
 */

/** @typedef {{header: Header, tables: Map<string, Table>}} Payload */

/**
 * Reads a payload; the tables are views into the buffer.
 *
 * @param {ArrayBuffer} buffer
 * @returns {Payload}
 * @throws {PayloadError} if it is not a payload, has another format, or is cut short
 */
export function parsePayload(buffer) {
  const text = new TextDecoder();
  if (buffer.byteLength < START || text.decode(new Uint8Array(buffer, 0, 8)) !== MAGIC) {
    throw new PayloadError("This is not an attribution file. Run the workflow again.");
  }
  const start = START + new DataView(buffer).getUint32(MAGIC.length, true);
  if (start > buffer.byteLength) throw cutShort();
  const header = JSON.parse(text.decode(new Uint8Array(buffer, START, start - START)));
  if (header.format !== FORMAT) {
    throw new PayloadError(
      `This page reads ${FORMAT}, but the server sent ${header.format}. Reload the page.`,
    );
  }
  header.definitions ??= ["paper", "model"]; // missing in files of version 1.0
  header.words ??= [];
  if (!header.references.length) addStandIn(header);
  /** @type {Map<string, Table>} */
  const tables = new Map();
  for (const [name, facts] of Object.entries(header.arrays)) {
    const { dtype, shape, offset, scale, per } = /** @type {any} */ (facts);
    const Type = TYPES[/** @type {keyof typeof TYPES} */ (dtype)];
    const count = product(shape);
    if (!Type) throw new PayloadError(`Unknown numbers (${dtype}). Reload the page.`);
    if (start + offset + count * Type.BYTES_PER_ELEMENT > buffer.byteLength) throw cutShort();
    tables.set(name, { data: new Type(buffer, start + offset, count), shape, scale, per });
  }
  return { header, tables };
}

/**
 * Words alone have no reference: a stand-in without maps saves everyone else the question.
 *
 * @param {Header} header
 */
function addStandIn(header) {
  header.references.push({
    ...{ grid: [1, 1], covered: [1, 1], size: header.generated.size, frames: 1 },
    ...{ kind: "no reference", label: "no reference", has_places: false, absent: true },
  });
  header.share.references.push(header.share.text.map(() => 0));
  header.correspondence.push(null);
}

function cutShort() {
  return new PayloadError("The attribution file is cut short. Run the workflow again.");
}

/** @param {number[]} numbers */
export function product(numbers) {
  return numbers.reduce((all, number) => all * number, 1);
}

/**
 * Adds one map, times a factor, to a sum. The map is a table's last axes at some leading indices.
 *
 * @param {Float32Array} sum
 * @param {Table} table
 * @param {number[]} indices of the leading axes; as many as `per` or more
 * @param {number} factor
 */
export function addTo(sum, table, indices, factor) {
  const { data, shape } = table;
  const size = product(shape.slice(indices.length));
  const start = flatIndex(shape, indices) * size;
  const scaled = factor * scaleAt(table, indices);
  for (let i = 0; i < size; i += 1) sum[i] += data[start + i] * scaled;
}

/**
 * @param {Table} table
 * @param {number[]} indices of at least the first `per` axes
 */
export function scaleAt({ scale, shape, per }, indices) {
  if (typeof scale === "number") return scale;
  return scale[flatIndex(shape, indices.slice(0, per))];
}

/**
 * @param {number[]} shape
 * @param {number[]} indices of the leading axes
 */
function flatIndex(shape, indices) {
  return indices.reduce((flat, index, axis) => flat * shape[axis] + index, 0);
}

/**
 * The colours of a colour map, low to high: 256 × (red, green, blue) in bytes.
 *
 * @param {Header} header
 * @param {string} name
 */
export function colorTable(header, name) {
  const text = atob(header.colormaps[name] ?? Object.values(header.colormaps)[0]);
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}
