// @ts-check
/** One picture with a map over it: its canvases, and its colour bar. */

import { fitted, heatSides, Painted, pictureSides } from "../drawing/canvas.js";
import { drawMarks } from "../drawing/marks.js";
import { colorize, darken, dim, gradient, lookup, paintedValues } from "../drawing/paint.js";
import { make } from "./controls.js";
import { Pointing } from "./pointing.js";
import { rangeEnds } from "./wording.js";

/** @typedef {import("../maps/grid.js").Grid} Grid */
/** @typedef {import("../maps/grid.js").Place} Place */

/**
 * @typedef {object} Layer a map, ready to paint
 * @property {Float32Array} values
 * @property {Grid} grid
 * @property {"%" | "×"} unit
 * @property {[number, number]} range
 * @property {import("../maps/maps.js").Scale} scale
 */

/**
 * @typedef {object} Look
 * @property {Uint8Array} table
 * @property {number} opacity
 * @property {number} threshold
 */

/**
 * @typedef {object} Marks
 * @property {Place | null} asked under the pointer
 * @property {Place | null} pinned
 * @property {Grid | null} grid the cells that points are resolved to
 * @property {Float32Array | null} mask its outline
 */

/** @typedef {{layer: Layer | null, look: Look, marks: Marks}} Shown */

export class Panel {
  #canvases = ["plain", "dimmed", "heat", "marks"].map((name) =>
    make("canvas", { class: `i2am-${name}`, "aria-hidden": "true" }),
  );
  #around = make("canvas", { class: "i2am-around", "aria-hidden": "true" });
  #title = make("span", { class: "i2am-title" });
  #note = make("span", { class: "i2am-note" });
  #low = make("span");
  #high = make("span");
  #bar = make("i", { class: "i2am-bar" });
  #score = make("output", { class: "i2am-score" });
  #legend = make("div", { class: "i2am-legend" }, this.#low, this.#bar, this.#high, this.#score);
  /** @type {HTMLImageElement | null} */
  #picture = null;
  /** @type {import("../maps/payload.js").Whole | null} */
  #whole = null;
  #painted = new Painted();
  /** @type {{look: Look, over: boolean, colors: Uint32Array} | null} */
  #colors = null;
  /** @type {Shown | null} */
  #shown = null;
  /**
   * @param {string} name "Result" or "Reference"
   * @param {import("./pointing.js").Gestures} gestures
   */
  constructor(name, gestures) {
    const pointing = new Pointing(gestures, {
      grid: () => this.#shown?.marks.grid ?? this.#shown?.layer?.grid,
      aspect: () => this.part[1] / this.part[0],
    });
    this.box = make("div", {
      class: "i2am-box",
      tabindex: 0,
      role: "application",
      "aria-label":
        `${name}. Arrow keys point at a place, Enter pins it, Escape lets go. ` +
        "Drag for a rectangle, Shift and drag to brush.",
      ...pointing.listeners,
    });
    this.box.append(...this.#canvases);
    const caption = make("figcaption", {}, this.#title, this.#note);
    this.frame = make("div", { class: "i2am-frame" }, this.#around, this.box);
    this.element = make("figure", { class: "i2am-figure" }, caption, this.frame, this.#legend);
    /** @type {[number, number]} height and width in pixels of the part that maps lie over */
    this.part = [1, 1];
  }

  /**
   * @param {HTMLImageElement | null} picture
   * @param {import("../maps/payload.js").Side} side
   * @param {string} title
   * @param {string} note
   */
  setPicture(picture, side, title, note) {
    const whole = side.whole ?? null;
    if (picture !== this.#picture || whole !== this.#whole) this.#painted = new Painted();
    this.#picture = picture;
    this.#whole = whole;
    this.part = side.size;
    write(this.#title, title);
    write(this.#note, note);
  }

  /**
   * @param {number} width in CSS pixels
   * @param {number} height
   */
  resize(width, height) {
    const [x, y, wide, tall] = this.#partOf(width, height);
    this.frame.style.width = `${width}px`;
    this.frame.style.height = `${height}px`;
    this.box.style.left = `${x}px`;
    this.box.style.top = `${y}px`;
    this.box.style.width = `${wide}px`;
    this.box.style.height = `${tall}px`;
    this.element.style.width = `${Math.max(width, 1)}px`;
  }

  /** @returns {[number, number]} height and width in pixels of the whole picture */
  get size() {
    return this.#whole?.size ?? this.part;
  }

  /** The whole picture and its part, where the model saw only a part; otherwise null. */
  get whole() {
    return this.#whole;
  }

  /**
   * Where the part that maps lie over is, in a picture drawn at this size.
   *
   * @param {number} width
   * @param {number} height
   * @returns {[number, number, number, number]} left, top, width, height
   */
  #partOf(width, height) {
    if (!this.#whole) return [0, 0, width, height];
    const { size, part } = this.#whole;
    const [down, across] = [height / size[0], width / size[1]];
    return [part[1] * across, part[0] * down, part[3] * across, part[2] * down];
  }

  /** Screen pixels per CSS pixel of the box, at the current zoom. */
  get density() {
    const zoom = this.box.getBoundingClientRect().width / (this.box.offsetWidth || 1);
    return (zoom || 1) * devicePixelRatio;
  }

  /**
   * @param {Layer | null} layer
   * @param {Look} look
   * @param {Marks} marks
   */
  paint(layer, look, marks) {
    this.#shown = { layer, look, marks };
    const { offsetWidth, offsetHeight } = this.box;
    if (!offsetWidth || !offsetHeight) return;
    const [plain, dimmed, heat, above] = this.#canvases;
    const [width, height] = pictureSides(offsetWidth, offsetHeight, this.density);

    const painted = this.#painted;
    this.#around.hidden = !this.#whole;
    if (this.#whole) {
      const { offsetWidth: wide, offsetHeight: tall } = this.frame;
      const sides = pictureSides(wide, tall, this.density);
      if (painted.changed("around", sides)) this.#drawAround(fitted(this.#around, ...sides));
    }
    if (painted.changed("plain", [width, height])) {
      this.#drawPicture(fitted(plain, width, height), 0);
    }
    dimmed.hidden = heat.hidden = !layer;
    if (layer) {
      if (painted.changed("dimmed", [width, height, look.opacity])) {
        this.#drawPicture(fitted(dimmed, width, height), look.opacity);
      }
      const sides = heatSides(layer, width, height);
      const facts = [layer.values, ...layer.range, layer.scale, look, ...sides];
      if (painted.changed("heat", facts)) {
        this.#drawHeat(fitted(heat, ...sides), layer, look);
      }
    }
    const outlined = look.threshold > 0 && layer ? [layer.values, ...layer.range, layer.scale] : [];
    const { asked, pinned, grid, mask } = marks;
    if (painted.changed("marks", [width, height, look, asked, pinned, grid, mask, ...outlined])) {
      drawMarks(fitted(above, width, height), layer, look, marks, width / offsetWidth);
    }
    this.#label(layer, look);
  }

  /** @param {number | null} score of what is painted; null if there is none */
  setScore(score) {
    write(this.#score, score === null ? "" : `IMACS ${score.toFixed(2)}`);
    this.#score.title =
      "Mean inside the mask minus three times the mean outside, as the paper scores it: " +
      "1 is best, below 0 the attention lies elsewhere.";
  }

  /**
   * Draws what is shown, at another size.
   *
   * @param {number} width
   * @param {number} height
   */
  compose(width, height) {
    if (this.#whole) {
      const canvas = make("canvas");
      const context = fitted(canvas, width, height);
      this.#drawAround(context);
      const [x, y, wide, tall] = this.#partOf(width, height).map(Math.round);
      context.drawImage(this.#composePart(Math.max(wide, 1), Math.max(tall, 1)), x, y);
      return canvas;
    }
    return this.#composePart(width, height);
  }

  /**
   * @param {number} width
   * @param {number} height
   */
  #composePart(width, height) {
    const canvas = make("canvas");
    const context = fitted(canvas, width, height);
    const { layer, look, marks } = /** @type {Shown} */ (this.#shown);
    this.#drawPicture(context, layer ? look.opacity : 0);
    if (layer) {
      const over = make("canvas");
      this.#drawHeat(fitted(over, width, height), layer, look);
      context.drawImage(over, 0, 0);
    }
    const above = make("canvas");
    const unit = width / (this.box.offsetWidth || width);
    drawMarks(fitted(above, width, height), layer, look, marks, unit);
    context.drawImage(above, 0, 0);
    return canvas;
  }

  /** What is painted over the picture, or null. */
  get layer() {
    return this.#shown?.layer ?? null;
  }

  /** Releases the picture and what was painted. */
  destroy() {
    this.#picture = null;
    this.#shown = this.#colors = null;
    for (const canvas of [...this.#canvases, this.#around]) canvas.width = canvas.height = 0;
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} opacity of the map over it
   */
  #drawPicture(context, opacity) {
    const { width, height } = context.canvas;
    context.clearRect(0, 0, width, height);
    if (!this.#picture) return;
    context.imageSmoothingQuality = "high";
    const { naturalWidth, naturalHeight } = this.#picture;
    context.drawImage(
      this.#picture,
      ...this.#partOf(naturalWidth, naturalHeight),
      ...[0, 0, width, height],
    );
    if (!opacity) return;
    const image = context.getImageData(0, 0, width, height);
    dim(image.data, opacity);
    context.putImageData(image, 0, 0);
  }

  /**
   * Draws the whole picture, darkened as what the model did not see.
   *
   * @param {CanvasRenderingContext2D} context
   */
  #drawAround(context) {
    const { width, height } = context.canvas;
    context.clearRect(0, 0, width, height);
    if (!this.#picture) return;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.#picture, 0, 0, width, height);
    const image = context.getImageData(0, 0, width, height);
    darken(image.data);
    context.putImageData(image, 0, 0);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Layer} layer
   * @param {Look} look
   */
  #drawHeat(context, layer, look) {
    const { width, height } = context.canvas;
    const over = this.#picture !== null;
    if (this.#colors?.look !== look || this.#colors.over !== over) {
      this.#colors = { look, over, colors: lookup(look.table, look.opacity, over) };
    }
    const image = context.createImageData(width, height);
    const painted = paintedValues(layer, height, width);
    colorize(painted, this.#colors.colors, new Uint32Array(image.data.buffer));
    context.putImageData(image, 0, 0);
  }

  /**
   * @param {Layer | null} layer
   * @param {Look} look
   */
  #label(layer, look) {
    this.#legend.classList.toggle("i2am-none", !layer);
    if (!layer) return this.setScore(null);
    const [low, high] = rangeEnds(layer);
    write(this.#low, low);
    write(this.#high, high);
    if (this.#painted.changed("bar", [look.table])) {
      this.#bar.style.backgroundImage = gradient(look.table);
    }
  }
}

/**
 * Sets a text only if it differs: each write makes the page lay out again.
 *
 * @param {HTMLElement} element
 * @param {string} text
 */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
