// @ts-check
/** Maps → pixels: colours, the dimmed picture below, outlines. Matches i2am/display/render.py. */

import { resample } from "../maps/grid.js";
import { paperCut } from "../maps/imacs.js";
import { stretch } from "../maps/maps.js";

/** @typedef {import("../maps/grid.js").Grid} Grid */
/** @typedef {import("../maps/maps.js").Scale} Scale */

const DIM = 0.35; // fraction of the picture's light removed at opacity 1
const UNSEEN_LIGHT = 0.25; // as in i2am/display/whole.py
const FADE = 0.5; // fraction of the picture's colour removed at opacity 1
const LUMA = [0.2126, 0.7152, 0.0722];
const ENTRIES = 1024; // in a lookup: too many for the steps to be visible
const LITTLE_ENDIAN = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

/**
 * The colours for values 0 to 1 over the dimmed picture: 1024 entries with alpha, as pixels of an
 * ImageData. Without a picture they are opaque.
 *
 * @param {Uint8Array} table 256 × (red, green, blue)
 * @param {number} opacity
 * @param {boolean} over whether there is a picture below
 * @returns {Uint32Array}
 */
export function lookup(table, opacity, over) {
  return Uint32Array.from({ length: ENTRIES }, (_, entry) => {
    const value = entry / (ENTRIES - 1);
    const alpha = over ? opacity * value * (2 - value) : 1; // as in `overlay`
    const [red, green, blue] = colorAt(table, value);
    return pixel(red, green, blue, Math.round(alpha * 255));
  });
}

/**
 * @param {Uint8Array} table
 * @param {number} value 0 to 1
 */
export function colorAt(table, value) {
  const last = table.length / 3 - 1;
  const left = Math.min(Math.floor(value * last), last - 1);
  const part = value * last - left;
  return [0, 1, 2].map((channel) => {
    const [from, to] = [table[left * 3 + channel], table[left * 3 + 3 + channel]];
    return Math.round(from + (to - from) * part);
  });
}

/**
 * @param {number} red
 * @param {number} green
 * @param {number} blue
 * @param {number} alpha
 */
function pixel(red, green, blue, alpha) {
  const bytes = LITTLE_ENDIAN ? [alpha, blue, green, red] : [red, green, blue, alpha];
  return ((bytes[0] << 24) | (bytes[1] << 16) | (bytes[2] << 8) | bytes[3]) >>> 0;
}

/**
 * A map resized to a picture's pixels, values below zero removed, and stretched to 0 to 1.
 *
 * @param {Float32Array} values
 * @param {Grid} grid
 * @param {number} height in pixels
 * @param {number} width
 * @param {number} low
 * @param {number} factor see `stretch`
 * @returns {Float32Array}
 */
export function normalised(values, grid, height, width, low, factor) {
  const pixels = resample(values, grid, height, width);
  for (let i = 0; i < pixels.length; i += 1) {
    pixels[i] = Math.min(Math.max((Math.max(pixels[i], 0) - low) * factor, 0), 1);
  }
  return pixels;
}

/**
 * Whether a scale paints as the authors' code does.
 *
 * @param {Scale} scale
 */
export function isPaper(scale) {
  return scale === "paper" || scale === "paper, complement";
}

/**
 * A map resized to a picture's pixels and brought to 0 to 1 by its scale; like `paint` in
 * i2am/display/render.py.
 *
 * @param {{values: Float32Array, grid: Grid, range: [number, number], scale: Scale}} layer
 * @param {number} height in pixels
 * @param {number} width
 * @returns {Float32Array}
 */
export function paintedValues({ values, grid, range, scale }, height, width) {
  if (isPaper(scale)) return paperCut(values, grid, height, width, scale !== "paper");
  return normalised(values, grid, height, width, range[0], stretch(...range));
}

/**
 * Writes the colours of values 0 to 1.
 *
 * @param {Float32Array} values
 * @param {Uint32Array} colors from `lookup`
 * @param {Uint32Array} pixels the output
 */
export function colorize(values, colors, pixels) {
  const last = colors.length - 1;
  for (let i = 0; i < values.length; i += 1) pixels[i] = colors[(values[i] * last + 0.5) | 0];
}

/**
 * Dims and fades the picture below a map, in place.
 *
 * @param {Uint8ClampedArray} pixels red, green, blue, alpha
 * @param {number} opacity
 */
export function dim(pixels, opacity) {
  const [fade, light] = [opacity * FADE, 1 - opacity * DIM];
  for (let i = 0; i < pixels.length; i += 4) {
    const luma = LUMA[0] * pixels[i] + LUMA[1] * pixels[i + 1] + LUMA[2] * pixels[i + 2];
    for (let channel = i; channel < i + 3; channel += 1) {
      pixels[channel] = (pixels[channel] + (luma - pixels[channel]) * fade) * light;
    }
  }
}

/**
 * Makes dark and grey what the model did not see of a picture, in place.
 *
 * @param {Uint8ClampedArray} pixels red, green, blue, alpha
 */
export function darken(pixels) {
  for (let i = 0; i < pixels.length; i += 4) {
    const luma = LUMA[0] * pixels[i] + LUMA[1] * pixels[i + 1] + LUMA[2] * pixels[i + 2];
    pixels.fill(luma * UNSEEN_LIGHT, i, i + 3);
  }
}

/**
 * The line where values cross a level, by marching squares: x, y, x, y … of its pieces, as
 * fractions of the picture. Values lie at pixel centres; there is nothing beyond the border.
 *
 * @param {ArrayLike<number>} values
 * @param {number} height
 * @param {number} width
 * @param {number} level
 * @returns {Float32Array}
 */
export function outline(values, height, width, level) {
  /** @type {number[]} */
  const pieces = [];
  const outside = level - 1;
  /** @type {(y: number, x: number) => number} */
  const at = (y, x) =>
    y < 0 || x < 0 || y >= height || x >= width ? outside : values[y * width + x];
  for (let y = -1; y < height; y += 1) {
    for (let x = -1; x < width; x += 1) {
      const corners = [at(y, x), at(y, x + 1), at(y + 1, x + 1), at(y + 1, x)];
      const kind = corners.reduce((bits, value, i) => bits | (value >= level ? 1 << i : 0), 0);
      for (const [from, to] of CROSSED[kind]) {
        pieces.push(...crossing(from, corners, x, y, level, height, width));
        pieces.push(...crossing(to, corners, x, y, level, height, width));
      }
    }
  }
  return Float32Array.from(pieces);
}

// The edges (top 0, right 1, bottom 2, left 3) that a line joins, indexed by the corners inside:
// top left 1, top right 2, bottom right 4, bottom left 8.
/** @type {[number, number][][]} */
const CROSSED = [
  [],
  [[3, 0]],
  [[0, 1]],
  [[3, 1]],
  [[1, 2]],
  [
    [3, 0],
    [1, 2],
  ],
  [[0, 2]],
  [[3, 2]],
  [[2, 3]],
  [[0, 2]],
  [
    [0, 1],
    [2, 3],
  ],
  [[1, 2]],
  [[1, 3]],
  [[0, 1]],
  [[0, 3]],
  [],
];

/**
 * @param {number} edge
 * @param {number[]} corners
 * @param {number} x
 * @param {number} y
 * @param {number} level
 * @param {number} height
 * @param {number} width
 * @returns {[number, number]}
 */
function crossing(edge, corners, x, y, level, height, width) {
  const [first, second] = [corners[edge], corners[(edge + 1) % 4]];
  const along = (level - first) / (second - first);
  const [right, down] = [
    [along, 0],
    [1, along],
    [1 - along, 1],
    [0, 1 - along],
  ][edge];
  const inside = (/** @type {number} */ part) => Math.min(Math.max(part, 0), 1);
  return [inside((x + right + 0.5) / width), inside((y + down + 0.5) / height)];
}

/**
 * A CSS gradient for the colour bar, left to right.
 *
 * @param {Uint8Array} table
 */
export function gradient(table) {
  const stops = Array.from({ length: 17 }, (_, stop) => `rgb(${colorAt(table, stop / 16)})`);
  return `linear-gradient(to right, ${stops.join(", ")})`;
}
