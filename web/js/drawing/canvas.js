// @ts-check
/** How many pixels are drawn, and when again. */

import { isPaper } from "./paint.js";

/** @typedef {import("../viewer/panel.js").Layer} Layer */

// Maps are smooth: more pixels than these cannot be seen, the browser draws what lies between.
const HEAT_SIDE = 512;
const HEAT_PER_CELL = 8;
const PICTURE_SIDE = 2048;

/** What canvases were painted from, to paint each again only when that has changed. */
export class Painted {
  /** @type {Map<string, unknown[]>} */
  #facts = new Map();

  /**
   * @param {string} name
   * @param {unknown[]} facts compared as they are: a value that is replaced is another
   */
  changed(name, facts) {
    const before = this.#facts.get(name);
    this.#facts.set(name, facts);
    return facts.length !== before?.length || facts.some((fact, n) => fact !== before[n]);
  }
}

/**
 * How many pixels a map is painted with over so many pixels of the picture.
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
 * How many pixels a picture is drawn with in a box of CSS pixels.
 *
 * @param {number} width
 * @param {number} height
 * @param {number} density pixels of the screen for one of them
 * @returns {[number, number]} width and height
 */
export function pictureSides(width, height, density) {
  const factor = Math.min(density, PICTURE_SIDE / Math.max(width, height));
  return [Math.max(1, Math.round(width * factor)), Math.max(1, Math.round(height * factor))];
}

/**
 * The context of a canvas of so many pixels.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {number} width
 * @param {number} height
 */
export function fitted(canvas, width, height) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  // Pixels are read and written by the processor: keep them there.
  return /** @type {CanvasRenderingContext2D} */ (
    canvas.getContext("2d", { willReadFrequently: true })
  );
}
