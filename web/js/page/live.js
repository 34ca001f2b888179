// @ts-check
/** Live maps of Capture Attention: the maps so far, over the latent's preview. */

import { colorize, dim, lookup, normalised } from "../drawing/paint.js";
import { makeGrid } from "../maps/grid.js";
import { make } from "../viewer/controls.js";
import { percent } from "../viewer/wording.js";

/**
 * A message from i2am/display/live.py.
 *
 * @typedef {object} Message
 * @property {number} step
 * @property {number} steps
 * @property {boolean} done whether it is the last of a run
 * @property {{text: number, self: number, references: number[]}} share
 * @property {[number, number]} grid
 * @property {[number, number]} covered
 * @property {{low: number, high: number, values: string}[]} maps
 */

const SIDE = 256; // pixels of a map's longer side
const OPACITY = 0.85;
// Black through red and amber to white: messages carry no colour table.
const TABLE = Uint8Array.from({ length: 256 * 3 }, (_, at) => {
  const [value, channel] = [Math.floor(at / 3) / 255, at % 3];
  return Math.round(255 * Math.min(Math.max(1.6 * value - channel * (0.6 - 0.2 * value), 0), 1));
});

export class LiveView {
  #maps = make("canvas", { "aria-hidden": "true" });
  #words = make("p", { role: "status" });
  #frame = 0;
  /** @type {Message | null} */
  #told = null;
  /** @type {ImageBitmap | null} */
  #preview = null;

  constructor() {
    this.element = make("div", { class: "i2am-live" }, this.#maps, this.#words);
  }

  /** @param {Message} message */
  tell(message) {
    const before = this.#told;
    if (!before || before.done || message.step <= before.step) this.#show(null); // a new run
    this.#told = message;
    this.#changed();
  }

  /** @param {Blob} picture a sampler's preview, used only during a run with live maps */
  async preview(picture) {
    if (!this.#told || this.#told.done) return;
    this.#show(await createImageBitmap(picture).catch(() => null));
    this.#changed();
  }

  /** @param {ImageBitmap | null} preview below the maps */
  #show(preview) {
    this.#preview?.close();
    this.#preview = preview;
  }

  destroy() {
    cancelAnimationFrame(this.#frame);
    this.#show(null);
    this.#told = null;
  }

  #changed() {
    if (!this.#frame) {
      this.#frame = requestAnimationFrame(() => {
        this.#frame = 0;
        if (this.#told) this.#paint(this.#told);
      });
    }
  }

  /** @param {Message} message */
  #paint({ step, steps, share, grid, covered, maps }) {
    const aspect = covered[1] / covered[0];
    const width = Math.round(SIDE * Math.min(aspect, 1));
    const height = Math.round(SIDE / Math.max(aspect, 1));
    this.#maps.width = maps.length * (width + 4) - 4;
    this.#maps.height = height;
    const context = /** @type {CanvasRenderingContext2D} */ (this.#maps.getContext("2d"));
    const colors = lookup(TABLE, OPACITY, this.#preview !== null);
    maps.forEach(({ values }, r) => {
      const left = r * (width + 4);
      const bytes = Float32Array.from(atob(values), (letter) => letter.charCodeAt(0));
      const painted = normalised(bytes, makeGrid(grid, covered), height, width, 0, 1 / 255);
      const over = make("canvas");
      [over.width, over.height] = [width, height];
      const layer = /** @type {CanvasRenderingContext2D} */ (over.getContext("2d"));
      const image = layer.createImageData(width, height);
      colorize(painted, colors, new Uint32Array(image.data.buffer));
      layer.putImageData(image, 0, 0);
      if (this.#preview) {
        context.drawImage(this.#preview, left, 0, width, height);
        const below = context.getImageData(left, 0, width, height);
        dim(below.data, OPACITY);
        context.putImageData(below, left, 0);
      }
      context.drawImage(over, left, 0);
    });
    const shares = share.references.map((part, r) => `reference ${r + 1}: ${percent(part)}`);
    this.#words.textContent = [`Step ${step} of ${steps}`, ...shares].join(" · ");
  }
}
