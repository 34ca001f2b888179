// @ts-check
/** What the viewer shows, as one plain value: saved in the workflow, replaced and never edited. */

/** @typedef {import("../maps/payload.js").Header} Header */
/** @typedef {import("../maps/grid.js").Place} Place */
/** @typedef {import("../maps/maps.js").Choice} Choice */

/** @typedef {"result" | "reference"} SideName */
/** @typedef {{side: SideName, place: Place}} Pin */

/**
 * A choice of what to look at, and how. `definition` null: the payload's default.
 *
 * @typedef {object} State
 * @property {number} item
 * @property {number} reference
 * @property {"paper" | "model" | "effect" | null} definition
 * @property {"r2g" | "g2r"} direction
 * @property {"unified" | "time" | "layer" | "head"} level
 * @property {number} map which of the level's maps
 * @property {[number, number] | null} steps
 * @property {[number, number] | null} layers
 * @property {number | null} head
 * @property {number | null} frame
 * @property {number | null} word whose map is shown in place of a reference's
 * @property {string} colormap
 * @property {number} opacity
 * @property {"mass" | "equal" | "value"} weight how much each layer counts
 * @property {"as chosen" | "paper"} preset
 * @property {"per map" | "shared" | "absolute"} scale
 * @property {number} threshold level of an outline, as a fraction of the painted range; 0: none
 * @property {Pin | null} pin
 * @property {boolean} settings whether the settings are unfolded
 */

/**
 * A state, fitted to what a payload can show.
 *
 * @typedef {Omit<State, "scale"> & Choice & {scale: import("../maps/maps.js").Scale}} Fitted
 */

export const DIRECTIONS = /** @type {const} */ (["r2g", "g2r"]);
export const LEVELS = /** @type {const} */ (["unified", "time", "layer", "head"]);
export const DEFINITIONS = /** @type {const} */ (["model", "paper", "effect"]);
export const WEIGHTS = /** @type {const} */ (["mass", "equal", "value"]);
export const PRESETS = /** @type {const} */ (["as chosen", "paper"]);
export const SCALES = /** @type {const} */ (["per map", "shared", "absolute"]);
const MOST_BRUSH_POINTS = 500;

/** @type {Readonly<State>} */
export const INITIAL = Object.freeze({
  item: 0,
  reference: 0,
  definition: null,
  direction: "r2g",
  level: "unified",
  map: 0,
  steps: null,
  layers: null,
  head: null,
  frame: null,
  word: null,
  colormap: "inferno",
  opacity: 0.8,
  weight: "mass",
  preset: "as chosen",
  scale: "per map",
  threshold: 0,
  pin: null,
  settings: false,
});

/**
 * Reads the state saved in a workflow; anything not understood gets its initial value.
 *
 * @param {unknown} saved
 * @returns {State}
 */
export function readState(saved) {
  const found = /** @type {Record<string, unknown>} */ (
    typeof saved === "object" && saved !== null ? saved : {}
  );
  return {
    item: wholeOr(found.item, 0),
    reference: wholeOr(found.reference, 0),
    definition: oneOf(DEFINITIONS, found.definition, null),
    direction: oneOf(DIRECTIONS, found.direction, INITIAL.direction),
    level: oneOf(LEVELS, found.level, INITIAL.level),
    map: wholeOr(found.map, 0),
    steps: rangeOr(found.steps),
    layers: rangeOr(found.layers),
    head: wholeOr(found.head, null),
    frame: wholeOr(found.frame, null),
    word: wholeOr(found.word, null),
    colormap: typeof found.colormap === "string" ? found.colormap : INITIAL.colormap,
    opacity: partOr(found.opacity, INITIAL.opacity),
    weight: oneOf(WEIGHTS, found.weight, INITIAL.weight),
    preset: oneOf(PRESETS, found.preset, INITIAL.preset),
    scale: oneOf(SCALES, found.scale, INITIAL.scale),
    threshold: partOr(found.threshold, 0),
    pin: readPin(found.pin),
    settings: found.settings === true,
  };
}

/**
 * @typedef {{type: "set", values: Partial<State>} | {type: "pin", pin: Pin} | {type: "clear"}
 *   | {type: "move", by: number, count: number}} Action
 */

/**
 * The state after an action.
 *
 * @param {State} state
 * @param {Action} action
 * @returns {State}
 */
export function reduce(state, action) {
  switch (action.type) {
    case "set": {
      const next = { ...state, ...action.values };
      if (next.reference !== state.reference && next.pin?.side === "reference") next.pin = null;
      // Heads are recorded over all steps, and steps over all heads: the later choice wins.
      if ("head" in action.values && next.head !== null) {
        return { ...next, steps: null, level: next.level === "layer" ? "layer" : "unified" };
      }
      if (next.level === "head") return { ...next, head: null, steps: null };
      if (next.level === "time" || "steps" in action.values) return { ...next, head: null };
      return next;
    }
    case "pin":
      return { ...state, pin: action.pin };
    case "clear":
      return { ...state, pin: null };
    case "move":
      return { ...state, map: (state.map + action.by + action.count) % action.count };
  }
}

/**
 * The state as far as a payload can show it; the choice itself is kept for other payloads.
 *
 * @param {State} state
 * @param {Header} header
 * @returns {Fitted}
 */
export function fit(state, header) {
  const most = Math.max(...header.heads);
  const reference = Math.min(state.reference, header.references.length - 1);
  const level = state.level === "head" && most === 0 ? "unified" : state.level;
  const side = state.direction === "r2g" ? header.generated : header.references[reference];
  const { has_places: places, grid } = header.references[reference];
  const direction = places ? state.direction : "r2g";
  const paper = state.preset === "paper";
  const single = direction === "r2g" && grid[0] * grid[1] === 1;
  return {
    ...state,
    item: Math.min(state.item, header.batch - 1),
    reference,
    // The paper's preset overrides what was chosen, as in Attribution Map.
    definition: paper ? "paper" : recorded(state.definition, header),
    weight: paper ? "value" : state.weight,
    scale: paper ? (single ? "paper, complement" : "paper") : state.scale,
    direction,
    level,
    steps: fitRange(state.steps, header.steps.length),
    layers: fitRange(state.layers, header.layers.length),
    head: state.head !== null && state.head < most ? state.head : null,
    frame: state.frame !== null && state.frame < side.frames ? state.frame : null,
    colormap: state.colormap in header.colormaps ? state.colormap : "inferno",
    word: fitWord(state.word, header),
    pin: fitPin(state.pin, header, reference),
  };
}

/**
 * A word the payload has; where there is nothing but words, the first.
 *
 * @param {number | null} word
 * @param {Header} header
 */
function fitWord(word, header) {
  if (word !== null && word < header.words.length) return word;
  return header.references[0].absent && header.words.length ? 0 : null;
}

/**
 * A place that can be asked about: words are ranked on the result.
 *
 * @param {Pin | null} pin
 * @param {Header} header
 * @param {number} reference
 */
function fitPin(pin, header, reference) {
  if (header.references[reference].has_places && header.correspondence[reference]) return pin;
  return pin?.side === "result" && header.words.length ? pin : null;
}

/**
 * @param {[number, number] | null} range
 * @param {number} count
 * @returns {[number, number] | null}
 */
function fitRange(range, count) {
  if (!range) return null;
  const last = Math.min(range[1], count - 1);
  const first = Math.min(range[0], last);
  return first === 0 && last === count - 1 ? null : [first, last];
}

/**
 * @template T
 * @template U
 * @param {readonly T[]} values
 * @param {unknown} found
 * @param {U} other
 * @returns {T | U}
 */
function oneOf(values, found, other) {
  return values.find((value) => value === found) ?? other;
}

/**
 * @template U
 * @param {unknown} found
 * @param {U} other
 * @returns {number | U}
 */
function wholeOr(found, other) {
  return typeof found === "number" && Number.isInteger(found) && found >= 0 ? found : other;
}

/**
 * @param {unknown} found
 * @param {number} other
 */
function partOr(found, other) {
  return isPart(found) ? found : other;
}

/**
 * @param {unknown} found
 * @returns {found is number}
 */
function isPart(found) {
  return typeof found === "number" && found >= 0 && found <= 1;
}

/**
 * @param {unknown} found
 * @returns {[number, number] | null}
 */
function rangeOr(found) {
  if (!Array.isArray(found) || found.length !== 2) return null;
  const [first, last] = [wholeOr(found[0], null), wholeOr(found[1], null)];
  return first !== null && last !== null && first <= last ? [first, last] : null;
}

/**
 * @param {unknown} found
 * @returns {Pin | null}
 */
function readPin(found) {
  const pin = /** @type {any} */ (found);
  const side = oneOf(/** @type {SideName[]} */ (["result", "reference"]), pin?.side, null);
  const place = pin?.place;
  if (!side || typeof place !== "object" || place === null) return null;
  const { kind, x, y, left, top, right, bottom, points, radius, aspect } = place;
  if (kind === "point" && isPart(x) && isPart(y)) return { side, place: { kind, x, y } };
  if (kind === "rectangle" && [left, top, right, bottom].every(isPart)) {
    return { side, place: { kind, left, top, right, bottom } };
  }
  const line =
    Array.isArray(points) &&
    points.length > 0 &&
    points.length <= MOST_BRUSH_POINTS &&
    points.every((point) => Array.isArray(point) && point.length === 2 && point.every(isPart));
  if (kind === "brush" && line && isPart(radius) && typeof aspect === "number" && aspect > 0) {
    return { side, place: { kind, points, radius, aspect } };
  }
  return null;
}

/**
 * The chosen definition, or the payload's default where it was not recorded.
 *
 * @param {State["definition"]} chosen
 * @param {Header} header
 */
function recorded(chosen, header) {
  return chosen && header.definitions.includes(chosen) ? chosen : header.definition;
}
