// @ts-check
/** Finds the references a model is given, in its order, by following its wires upstream. */

import { inputNamed, inputOfType, source } from "./sources.js";
import {
  JOINED_TOKENS,
  KEPT_CONDITIONINGS,
  ON_CONDITIONING,
  ON_MODEL,
  ORDER,
  SAME_PICTURE,
  UNREAD,
} from "./tables.js";

/** @typedef {import("./sources.js").Scope} Scope */
/** @typedef {import("./sources.js").Source} Source */
/** @typedef {import("./sources.js").Wire} Wire */

/**
 * @typedef {Object} Mark tokens that Mark Redux Tokens must find
 * @property {Wire} wire the wire to insert it into
 * @property {Source} styleModel
 * @property {Source} vision
 *
 * @typedef {Object} Reference
 * @property {import("./tables.js").Way} way
 * @property {Source | null} picture null where it cannot be found
 * @property {string} from the node and input it enters by
 * @property {boolean} centred the model saw its middle, in the result's proportions
 * @property {Mark | null} mark
 *
 * @typedef {{ references: Reference[], beside: string[], unread: string | null }} Found
 *   beside: pictures that enter beside the tokens, by node and input
 *   unread: why this kind of model cannot be watched
 */

const MOST_NODES = 1000;

/**
 * @param {import("./samplers.js").Given} given
 * @returns {Found}
 */
export function referencesOf({ scope, node, model, positive }) {
  const walk = new Walk();
  walk.models(source(scope, node, model));
  walk.conditionings(positive < 0 ? null : source(scope, node, positive), null);
  const { beside, unread } = walk;
  const ways = new Set(walk.references.map((reference) => reference.way));
  const found = [...walk.references];
  // Each style model puts its tokens before those of the previous one.
  const styles = found.filter((reference) => reference.way === "style");
  for (const [index, one] of found.entries()) {
    if (one.way === "style") found[index] = /** @type {Reference} */ (styles.pop());
  }
  const references = ORDER.filter((way) => way !== "clip" || !ways.has("latent")).flatMap((way) =>
    found.filter((reference) => reference.way === way),
  );
  return { references, beside, unread };
}

class Walk {
  /** @type {Reference[]} */
  references = [];
  /** @type {string[]} */
  beside = [];
  /** @type {string | null} */
  unread = null;
  /** @type {Set<any>} CLIP vision outputs whose tokens are already marked, by node */
  #marked = new Set();
  #left = MOST_NODES;

  /** The adapters on a model's wire, in the order they are applied. @param {Source | null} found */
  models(found) {
    if (!found || this.#left-- <= 0) return;
    const { scope, node } = found;
    this.models(source(scope, node, inputOfType(node, "MODEL")));
    if (ON_MODEL[node.type]) this.#take(found, ON_MODEL[node.type], found.wire);
  }

  /**
   * @param {Source | null} found
   * @param {Wire | null} joined where the tokens of this conditioning join those of another
   */
  conditionings(found, joined) {
    if (!found || this.#left-- <= 0) return;
    const { scope, node } = found;
    this.unread ??= UNREAD[node.type] ?? null;
    if (node.type === "I2AM_MarkRedux") {
      this.#marked.add(source(scope, node, inputNamed(node, "clip_vision_output"))?.node);
    }
    for (const index of conditioningInputs(node, found.slot)) {
      const joins = JOINED_TOKENS[node.type] === node.inputs[index].name;
      this.conditionings(source(scope, node, index), joined ?? (joins ? found.wire : null));
    }
    const giver = ON_CONDITIONING[node.type];
    if (giver) this.#take(found, giver, joined ?? found.wire);
  }

  /**
   * @param {Source} found
   * @param {import("./tables.js").Giver} giver
   * @param {Wire} wire
   */
  #take({ scope, node }, giver, wire) {
    const linked = (/** @type {string} */ name) =>
      node.inputs[inputNamed(node, name)]?.link != null &&
      source(scope, node, inputNamed(node, name));
    for (const name of giver.beside ?? []) {
      if (linked(name)) this.beside.push(`${name} of ${title(node)}`);
    }
    if (giver.needs && !linked(giver.needs)) return;
    for (const [name, value] of Object.entries(giver.when ?? {})) {
      const widget = node.widgets?.find((/** @type {any} */ one) => one.name === name);
      if (widget?.value !== value) return;
    }
    for (const name of giver.pictures.flatMap((one) => named(node, one))) {
      const index = inputNamed(node, name);
      const input = index < 0 ? null : source(scope, node, index);
      if (!input) continue;
      const styleModel = giver.mark ? source(scope, node, inputNamed(node, giver.mark)) : null;
      const mark =
        styleModel && !this.#marked.has(input.node) ? { wire, styleModel, vision: input } : null;
      const picture = pictureOf(input, node.inputs[index].type);
      const from = `${name} of ${title(node)}`;
      const { way, centred = false } = giver;
      this.references.push({ way, picture, from, centred, mark });
    }
  }
}

/** @param {any} node */
const title = (node) => node.title || node.type;

/** The inputs that a name in the table stands for. @param {any} node @param {string} name */
function named(node, name) {
  if (!name.endsWith("*")) return [name];
  return (node.inputs ?? [])
    .map((/** @type {any} */ input) => input.name)
    .filter((/** @type {string} */ one) => one.startsWith(name.slice(0, -1)));
}

/**
 * The conditioning inputs whose references reach a node's output. A positive or negative output has
 * those of the inputs on its own side.
 *
 * @param {any} node
 * @param {number} slot
 * @returns {number[]}
 */
function conditioningInputs(node, slot) {
  const all = [...(node.inputs ?? []).keys()].filter((i) => node.inputs[i].type === "CONDITIONING");
  const kept = KEPT_CONDITIONINGS[node.type];
  if (kept) return all.filter((index) => kept.includes(node.inputs[index].name));
  const side = /^(positive|negative)/.exec(node.outputs[slot]?.name ?? "")?.[1];
  const paired = all.filter((index) => side && node.inputs[index].name.startsWith(side));
  return paired.length ? paired : all;
}

/**
 * The picture a latent or CLIP vision output was made from, as the model was given it.
 *
 * @param {Source} found
 * @param {string} type
 * @returns {Source | null}
 */
function pictureOf(found, type) {
  if (type === "IMAGE") return found;
  const { scope, node } = found;
  const takes = (/** @type {string} */ one) =>
    (node.inputs ?? []).filter((/** @type {any} */ input) => input.type === one).length;
  if (takes("IMAGE") === 1 && !takes("LATENT") && !takes("CONDITIONING")) {
    return source(scope, node, inputOfType(node, "IMAGE"));
  }
  if (!SAME_PICTURE.has(node.type)) return null;
  const upper = source(scope, node, inputOfType(node, type));
  return upper && pictureOf(upper, type);
}
