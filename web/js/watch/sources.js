// @ts-check
/**
 * Finds where an input's value comes from when ComfyUI runs the graph: past reroutes, bypassed
 * nodes, Get and Set nodes and the borders of subgraphs.
 *
 * A subgraph may be used several times in a graph, so a node alone does not say where it is.
 *
 * @typedef {Object} Scope a graph, seen through the subgraph node that stands for it
 * @property {any} graph
 * @property {Scope | null} outer null for the workflow itself
 * @property {any} holder the subgraph node in `outer`
 *
 * @typedef {Object} Source an output that something comes from
 * @property {Scope} scope
 * @property {any} node
 * @property {number} slot
 * @property {Wire} wire the wire that leaves it
 *
 * @typedef {{ scope: Scope, link: any }} Wire
 */

import { SWITCHES } from "./tables.js";

const [NEVER, BYPASSED] = [2, 4]; // modes of a node
const MOST_HOPS = 500;

/** @param {any} graph the workflow's own @returns {Scope} */
export const rootScope = (graph) => ({ graph, outer: null, holder: null });

/** @param {Scope} outer @param {any} holder a subgraph node in it @returns {Scope} */
export const innerScope = (outer, holder) => ({ graph: holder.subgraph, outer, holder });

/** @param {Scope | null} one @param {Scope | null} other @returns {boolean} */
export function sameScope(one, other) {
  if (!one || !other) return one === other;
  return (
    one.graph === other.graph && one.holder === other.holder && sameScope(one.outer, other.outer)
  );
}

/** @param {any} node */
export const isActive = (node) => node.mode !== NEVER && node.mode !== BYPASSED;

/**
 * A scope and all within it, outermost first.
 *
 * @param {Scope} scope
 * @param {(holder: any) => boolean} counts which subgraph nodes to enter: those that run
 * @returns {Scope[]}
 */
export function scopesWithin(scope, counts = isActive) {
  const holders = scope.graph.nodes.filter(
    (/** @type {any} */ node) => node.isSubgraphNode?.() && counts(node),
  );
  return [
    scope,
    ...holders.flatMap((/** @type {any} */ h) => scopesWithin(innerScope(scope, h), counts)),
  ];
}

/** The index of an input, or -1. @param {any} node @param {string} name */
export const inputNamed = (node, name) =>
  (node.inputs ?? []).findIndex((/** @type {any} */ input) => input.name === name);

/** The index of the first input of a type, or -1. @param {any} node @param {string} type */
export const inputOfType = (node, type) =>
  (node.inputs ?? []).findIndex((/** @type {any} */ input) => input.type === type);

/** The index of the first output of a type, or -1. @param {any} node @param {string} type */
export const outputOfType = (node, type) =>
  (node.outputs ?? []).findIndex((/** @type {any} */ output) => output.type === type);

/**
 * The source of a node's input; null if it has none.
 *
 * @param {Scope} scope
 * @param {any} node
 * @param {number} index of the input
 * @returns {Source | null}
 */
export function source(scope, node, index) {
  const id = node.inputs?.[index]?.link;
  const link = id == null ? null : scope.graph.getLink(id);
  return link ? follow({ scope, link }) : null;
}

/** @param {Wire} into @returns {Source | null} */
function follow(into) {
  let wire = /** @type {Wire | null} */ (into);
  for (let hop = 0; wire && hop < MOST_HOPS; hop++) {
    const { scope, link } = wire;
    const { graph } = scope;
    if (isInputBorder(graph, link.origin_id)) {
      if (!scope.outer) return null;
      wire = wireInto(scope.outer, scope.holder, holderInput(scope, link.origin_slot));
      continue;
    }
    const node = graph.getNodeById(link.origin_id);
    if (!node || node.mode === NEVER) return null;
    if (node.mode === BYPASSED) {
      wire = wireInto(scope, node, bypassInput(node, link.origin_slot, link.type));
    } else if (node.isSubgraphNode?.()) {
      wire = wireOut(innerScope(scope, node), link.origin_slot);
    } else if (node.isVirtualNode) {
      const far = node.resolveVirtualOutput?.(link.origin_slot);
      if (far) {
        const home = scopeOf(scope, far.node.graph);
        return home && { scope: home, node: far.node, slot: far.slot, wire };
      }
      wire = virtualWire(scope, node, link.origin_slot);
    } else if (SWITCHES[node.type]) {
      const chosen = switchInput(scope, node);
      if (chosen < 0) return { scope, node, slot: link.origin_slot, wire };
      wire = wireInto(scope, node, chosen);
    } else {
      return { scope, node, slot: link.origin_slot, wire };
    }
  }
  return null;
}

/** @param {any} graph @param {any} id */
export const isInputBorder = (graph, id) =>
  graph.inputNode !== undefined && String(id) === String(graph.inputNode.id);

/** @param {any} graph @param {any} id */
export const isOutputBorder = (graph, id) =>
  graph.outputNode !== undefined && String(id) === String(graph.outputNode.id);

/** The input of a subgraph node that stands for an input of its subgraph.
 *
 * @param {Scope} scope @param {number} slot
 */
export function holderInput(scope, slot) {
  const wanted = scope.graph.inputs[slot];
  const { inputs } = scope.holder;
  const found = inputs.findIndex((/** @type {any} */ input) => input._subgraphSlot === wanted);
  return found >= 0 ? found : inputNamed(scope.holder, wanted?.name);
}

/** @param {Scope} scope @param {any} node @param {number} index @returns {Wire | null} */
function wireInto(scope, node, index) {
  const id = node.inputs?.[index]?.link;
  const link = id == null ? null : scope.graph.getLink(id);
  return link ? { scope, link } : null;
}

/** The wire that leaves a subgraph by an output. @param {Scope} inner @param {number} slot */
function wireOut(inner, slot) {
  const id = inner.graph.outputs[slot]?.linkIds[0];
  const link = id == null ? null : inner.graph.getLink(id);
  return link ? { scope: inner, link } : null;
}

/** The wire into a reroute, or for a Get node, the wire into its Set node.
 *
 * @param {Scope} scope @param {any} node @param {number} slot @returns {Wire | null}
 */
function virtualWire(scope, node, slot) {
  const link = node.getInputLink?.(slot) ?? null;
  if (!link) return null;
  for (let at = /** @type {Scope | null} */ (scope); at; at = at.outer) {
    if (at.graph.getLink(link.id) === link) return { scope: at, link };
  }
  return null;
}

/** @param {Scope} scope @param {any} graph of it, or around it @returns {Scope | null} */
function scopeOf(scope, graph) {
  for (let at = /** @type {Scope | null} */ (scope); at; at = at.outer) {
    if (at.graph === graph) return at;
  }
  return null;
}

/** The input a bypassed node passes on, chosen as ComfyUI does.
 *
 * @param {any} node @param {number} slot of the output @param {string} type that is wanted
 */
function bypassInput(node, slot, type) {
  const inputs = node.inputs ?? [];
  if (fits(inputs[slot]?.type, node.outputs[slot].type) && fits(inputs[slot]?.type, type)) {
    return slot;
  }
  const same = inputs.findIndex((/** @type {any} */ input) => input.type === type);
  return same >= 0 ? same : inputs.findIndex((/** @type {any} */ input) => fits(input.type, type));
}

/** @param {string | undefined} one @param {string} other */
const fits = (one, other) => one === other || (one !== undefined && (one === "*" || other === "*"));

/** The input a switch passes on; -1 if its setting is not known before the run.
 *
 * @param {Scope} scope @param {any} node
 */
function switchInput(scope, node) {
  const { by, inputs } = SWITCHES[node.type];
  const chosen = settingOf(scope, node, inputNamed(node, by), by);
  return chosen === undefined ? -1 : inputNamed(node, inputs[Number(Boolean(chosen))]);
}

/**
 * The value of a widget, set directly or by a wire from a primitive or a subgraph's own widget.
 *
 * @param {Scope} scope
 * @param {any} node
 * @param {number} index of its input, or -1 if it has none
 * @param {string} name
 * @returns {unknown} undefined if it is not known
 */
function settingOf(scope, node, index, name) {
  const wire = wireInto(scope, node, index);
  if (!wire) return widgetOf(node, node.inputs?.[index]?.widget?.name ?? name)?.value;
  const { origin_id: origin, origin_slot: slot } = wire.link;
  if (isInputBorder(scope.graph, origin)) {
    if (!scope.outer) return undefined;
    const entry = holderInput(scope, slot);
    return settingOf(scope.outer, scope.holder, entry, scope.holder.inputs[entry]?.name);
  }
  const found = follow(wire);
  return found?.node.type.startsWith("Primitive") ? found.node.widgets?.[0]?.value : undefined;
}

/** @param {any} node @param {string} name */
const widgetOf = (node, name) =>
  node.widgets?.find((/** @type {any} */ widget) => widget.name === name);
