// @ts-check
/** Gestures on a picture, by pointer and keyboard, as places in it. */

/** @typedef {import("../maps/grid.js").Grid} Grid */
/** @typedef {import("../maps/grid.js").Place} Place */

/**
 * @typedef {object} Gestures what gestures on the picture do
 * @property {(place: Place | null) => void} ask
 * @property {(place: Place) => void} pin
 * @property {() => void} clear
 */

/**
 * @typedef {object} Facts
 * @property {() => Grid | null | undefined} grid the cells that arrow keys step through
 * @property {() => number} aspect the picture's width divided by its height
 */

const DRAG_PIXELS = 4;
const BRUSH_RADIUS = 0.04; // of the longer side
const BRUSH_SPACING = 0.25; // of the radius
const MOST_BRUSH_POINTS = 500;
/** @type {Record<string, [number, number]>} */
const ARROWS = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

export class Pointing {
  /** @type {{x: number, y: number, brush: boolean, place: Place | null} | null} */
  #drag = null;
  /** @type {[number, number]} x and y of the keyboard's cursor */
  #cursor = [0.5, 0.5];
  /** @type {Gestures} */
  #gestures;
  /** @type {Facts} */
  #facts;

  /**
   * @param {Gestures} gestures
   * @param {Facts} facts
   */
  constructor(gestures, facts) {
    this.#gestures = gestures;
    this.#facts = facts;
  }

  /** Event listeners for the picture's element, by event name. */
  get listeners() {
    return {
      pointermove: this.#moved,
      pointerdown: this.#pressed,
      pointerup: this.#released,
      pointercancel: this.#left,
      pointerleave: this.#left,
      keydown: this.#typed,
      blur: this.#left,
    };
  }

  /** @type {(event: PointerEvent) => void} */
  #moved = (event) => {
    const [x, y] = this.#at(event);
    const drag = this.#drag;
    if (!drag) {
      if (event.buttons === 0) this.#gestures.ask({ kind: "point", x, y });
      return;
    }
    const { width, height } = boxOf(event).getBoundingClientRect();
    const far = Math.hypot((x - drag.x) * width, (y - drag.y) * height) > DRAG_PIXELS;
    if (!drag.place && !far) return;
    drag.place = drag.brush ? this.#brushed(drag, x, y) : rectangle(drag.x, drag.y, x, y);
    this.#gestures.ask(drag.place);
  };

  /** @type {(event: PointerEvent) => void} */
  #pressed = (event) => {
    if (event.button !== 0) return;
    event.stopPropagation();
    boxOf(event).setPointerCapture(event.pointerId);
    const [x, y] = this.#at(event);
    this.#drag = { x, y, brush: event.shiftKey, place: null };
    if (event.shiftKey) this.#drag.place = this.#brushed(this.#drag, x, y);
  };

  /** @type {(event: PointerEvent) => void} */
  #released = (event) => {
    const drag = this.#drag;
    this.#drag = null;
    if (!drag) return;
    const [x, y] = this.#at(event);
    this.#cursor = [x, y];
    this.#gestures.pin(drag.place ?? { kind: "point", x, y });
  };

  #left = () => {
    if (this.#drag) return;
    this.#gestures.ask(null);
  };

  /** @type {(event: KeyboardEvent) => void} */
  #typed = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    const grid = this.#facts.grid();
    if (arrow && grid) {
      const [across, down] = [grid.covered[1], grid.covered[0]];
      this.#cursor = [
        clamp(this.#cursor[0] + arrow[0] / across),
        clamp(this.#cursor[1] + arrow[1] / down),
      ];
      this.#gestures.ask({ kind: "point", x: this.#cursor[0], y: this.#cursor[1] });
    } else if (event.key === "Enter" || event.key === " ") {
      this.#gestures.pin({ kind: "point", x: this.#cursor[0], y: this.#cursor[1] });
    } else if (event.key === "Escape") {
      this.#drag = null;
      this.#gestures.clear();
    } else return;
    // ComfyUI uses these keys itself.
    event.preventDefault();
    event.stopPropagation();
  };

  /**
   * @param {PointerEvent} event
   * @returns {[number, number]}
   */
  #at(event) {
    const { left, top, width, height } = boxOf(event).getBoundingClientRect();
    return [clamp((event.clientX - left) / width), clamp((event.clientY - top) / height)];
  }

  /**
   * @param {{place: Place | null}} drag
   * @param {number} x
   * @param {number} y
   * @returns {Place}
   */
  #brushed({ place }, x, y) {
    /** @type {[number, number][]} */
    const points = place?.kind === "brush" ? place.points : [];
    const last = points.at(-1);
    const far = !last || Math.hypot(x - last[0], y - last[1]) > BRUSH_RADIUS * BRUSH_SPACING;
    return {
      kind: "brush",
      points: far && points.length < MOST_BRUSH_POINTS ? [...points, [x, y]] : points,
      radius: BRUSH_RADIUS,
      aspect: this.#facts.aspect(),
    };
  }
}

/**
 * @param {Event} event
 * @returns {HTMLElement}
 */
function boxOf(event) {
  return /** @type {HTMLElement} */ (event.currentTarget);
}

/** @param {number} part */
function clamp(part) {
  return Math.min(Math.max(part, 0), 1);
}

/**
 * @param {number} x
 * @param {number} y
 * @param {number} toX
 * @param {number} toY
 * @returns {Place}
 */
function rectangle(x, y, toX, toY) {
  const [left, right] = [Math.min(x, toX), Math.max(x, toX)];
  const [top, bottom] = [Math.min(y, toY), Math.max(y, toY)];
  return { kind: "rectangle", left, top, right, bottom };
}
