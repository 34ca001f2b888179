// @ts-check
/** How many pixels are drawn, and when to redraw. */

import { isPaper } from "./paint.js";

/** @typedef {import("../viewer/panel.js").Layer} Layer */

// Maps are smooth: more pixels would not be visible, and the browser interpolates.
const HEAT_SIDE = 512;
const HEAT_PER_CELL = 8;
const PICTURE_SIDE = 2048;

/** What each canvas was painted from, so that it is repainted only when that changes. */
export class Painted {
  /** @type {Map<string, unknown[]>} */
  #facts = new Map();

  /**
   * @param {string} name
   * @param {unknown[]} facts compared by identity: a replaced value counts as changed
   */
  changed(name, facts) {
    const before = this.#facts.get(name);
    this.#facts.set(name, facts);
    return facts.length !== before?.length || facts.some((fact, n) => fact !== before[n]);
  }
}

/**
 * The size to paint a map at, over a picture of this many pixels.
 *
 * @param {Layer} layer
 * @param {number} width
 * @param {number} height
 * @returns {[number, number]} width and height
 */
export function heatSides({ grid: { covered }, scale }, width, height) {
  const perCell = isPaper(scale) ? HEAT_SIDE : HEAT_PER_CELL; // a cut has sharp edges
  const most = (/** @type {number} */ cells) => Math.min(Math.ceil(cells * perCell), HEAT_SIDE);
  return [Math.min(width, most(covered[1])), Math.min(height, most(covered[0]))];
}

/**
 * The size to draw a picture at, in a box given in CSS pixels.
 *
 * @param {number} width
 * @param {number} height
 * @param {number} density screen pixels per CSS pixel
 * @returns {[number, number]} width and height
 */
export function pictureSides(width, height, density) {
  const factor = Math.min(density, PICTURE_SIDE / Math.max(width, height));
  return [Math.max(1, Math.round(width * factor)), Math.max(1, Math.round(height * factor))];
}

/**
 * The context of a canvas, resized to this many pixels.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {number} width
 * @param {number} height
 */
export function fitted(canvas, width, height) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  // The CPU reads and writes the pixels: keep them in its memory.
  return /** @type {CanvasRenderingContext2D} */ (
    canvas.getContext("2d", { willReadFrequently: true })
  );
}
