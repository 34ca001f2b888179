// @ts-check
/** IMACS of a map with a mask: i2am/scores/imacs.py's paper preset, its penalty and threshold. */

import { resample } from "./grid.js";
import { extent } from "./maps.js";

const EPSILON = 1e-8;
const PENALTY = 3;
export const THRESHOLD = 0.4;
const INSIDE = 128; // the lowest mask byte that counts as inside

/** @typedef {{data: Uint8Array, height: number, width: number}} Mask */

/**
 * Mean inside minus three times the mean outside, -3 to 1; null for an empty or full mask.
 *
 * @param {Float32Array} values
 * @param {import("./grid.js").Grid} grid
 * @param {Mask} mask over the same picture
 * @param {boolean} complement whether one minus the map is scored
 * @returns {number | null}
 */
export function imacs(values, grid, { data, height, width }, complement = false) {
  const pixels = paperCut(values, grid, height, width, complement);
  const sums = [0, 0];
  const counts = [0, 0];
  for (let pixel = 0; pixel < pixels.length; pixel += 1) {
    const side = data[pixel] >= INSIDE ? 1 : 0;
    counts[side] += 1;
    sums[side] += pixels[pixel];
  }
  if (!counts[0] || !counts[1]) return null;
  return sums[1] / counts[1] - (PENALTY * sums[0]) / counts[0];
}

/**
 * A map at the size of a picture, as in the authors' code: min-max, bicubic, min-max, one minus
 * that if asked for, and zero where it is not above the cut.
 *
 * @param {Float32Array} values
 * @param {import("./grid.js").Grid} grid
 * @param {number} height in pixels
 * @param {number} width
 * @param {boolean} complement
 * @returns {Float32Array} 0 to 1
 */
export function paperCut(values, grid, height, width, complement) {
  const level = values.reduce((sum, value) => sum + Math.abs(value), 0) / values.length || 1;
  const cells = norm(values.map((value) => value / level));
  return norm(resample(cells, grid, height, width)).map((pixel) => {
    const value = complement ? 1 - pixel : pixel;
    return value > THRESHOLD ? value : 0;
  });
}

/** @param {Float32Array} values */
function norm(values) {
  const [low, high] = extent([values]);
  const factor = 1 / (high - low + EPSILON);
  return values.map((value) => (value - low) * factor);
}
