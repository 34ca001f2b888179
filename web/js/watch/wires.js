// @ts-check
/**
 * Graph changes that can be undone to the byte. To insert a node, the existing wire is led to it,
 * and a new wire leads on from it. The existing wire keeps its id, its order among the others and
 * its reroutes. Taking the node out leads it back.
 */

import { holderInput, isOutputBorder, sameScope } from "./sources.js";

/** @typedef {import("./sources.js").Scope} Scope */
/** @typedef {import("./sources.js").Source} Source */
/**
 * Where a value is available within a graph: an output of a node or, where the node is null, an
 * input of the subgraph.
 *
 * @typedef {{ scope: Scope, node: any, slot: number }} Port
 */
/** @typedef {{ graph: string, side: "inputs" | "outputs", id: string }} Added a slot of a subgraph */

/**
 * Inserts a node into a wire.
 *
 * @param {any} graph
 * @param {any} link
 * @param {any} node
 * @param {string} input where the wire enters it
 */
export function insert(graph, link, node, input) {
  const { target_id: target, target_slot: slot } = link;
  const index = node.inputs.findIndex((/** @type {any} */ one) => one.name === input);
  leave(graph, link);
  link.target_id = node.id;
  link.target_slot = index;
  node.inputs[index].link = link.id;
  enter(graph, node, 0, target, slot);
  graph.incrementVersion?.();
}

/**
 * Takes a node off its wires, and leads the wire that entered it to where its output led.
 *
 * @param {any} graph
 * @param {any} node
 * @param {string} input where the wire enters it
 */
export function takeOut(graph, node, input) {
  const index = node.inputs.findIndex((/** @type {any} */ one) => one.name === input);
  const link = graph.getLink(node.inputs[index]?.link);
  const onwards = [...(node.outputs[0].links ?? [])].map((id) => graph.getLink(id));
  const targets = onwards.map(({ target_id, target_slot }) => [target_id, target_slot]);
  for (const onward of onwards) cut(graph, onward);
  const [first, ...others] = targets;
  if (link && first) {
    node.inputs[index].link = null;
    [link.target_id, link.target_slot] = first;
    arrive(graph, link);
    const origin = graph.getNodeById(link.origin_id);
    for (const [target, slot] of others) {
      if (origin) enter(graph, origin, link.origin_slot, target, slot);
      else graph.inputs[link.origin_slot].connect(...inputOf(graph, target, slot));
    }
  }
  graph.remove(node);
}

/** @param {any} graph @param {any} target @param {number} slot @returns {[any, any]} */
function inputOf(graph, target, slot) {
  const node = graph.getNodeById(target);
  return [node.inputs[slot], node];
}

/** Detaches a wire from its target; the wire itself stays. @param {any} graph @param {any} link */
function leave(graph, link) {
  if (isOutputBorder(graph, link.target_id)) graph.outputs[link.target_slot].linkIds.length = 0;
  else graph.getNodeById(link.target_id).inputs[link.target_slot].link = null;
}

/** Attaches a wire to its target. @param {any} graph @param {any} link */
function arrive(graph, link) {
  if (isOutputBorder(graph, link.target_id)) {
    graph.outputs[link.target_slot].linkIds[0] = link.id;
    return;
  }
  const node = graph.getNodeById(link.target_id);
  node.inputs[link.target_slot].link = link.id;
  const change = { nodeId: node.id, slotType: 1, slotIndex: link.target_slot };
  graph.trigger?.("node:slot-links:changed", { ...change, connected: true, linkId: link.id });
}

/** Connects an output with the target of this id. @param {any} graph @param {any} node
 * @param {number} output @param {any} target @param {number} slot
 */
function enter(graph, node, output, target, slot) {
  if (isOutputBorder(graph, target)) graph.outputs[slot].connect(node.outputs[output], node);
  else node.connect(output, graph.getNodeById(target), slot);
}

/** Removes a wire. @param {any} graph @param {any} link */
function cut(graph, link) {
  if (isOutputBorder(graph, link.target_id)) graph.outputs[link.target_slot].disconnect();
  else graph.getNodeById(link.target_id).disconnectInput(link.target_slot);
}

/** Connects a port with an input of a node in the same graph.
 *
 * @param {Port} port @param {any} node @param {number} index
 */
export function connect({ scope, node: origin, slot }, node, index) {
  if (origin) origin.connect(slot, node, index);
  else scope.graph.inputs[slot].connect(node.inputs[index], node);
}

/**
 * Makes a source available in another scope, through the borders of the subgraphs between them. It
 * uses the slots that are there, or adds new ones.
 *
 * @param {Source} source
 * @param {Scope} scope
 * @param {string} name of new slots
 * @param {Added[]} added where new slots are noted
 * @returns {Port}
 */
export function carry(source, scope, name, added) {
  const down = [];
  let common = scope;
  while (!isWithin(source.scope, common)) {
    down.push(common);
    common = /** @type {Scope} */ (common.outer);
  }
  let port = /** @type {Port} */ ({ scope: source.scope, node: source.node, slot: source.slot });
  while (!sameScope(port.scope, common)) port = outwards(port, name, added);
  for (const inner of down.reverse()) port = inwards(port, inner, name, added);
  return port;
}

/** @param {Scope | null} scope @param {Scope} around */
function isWithin(scope, around) {
  for (let at = scope; at; at = at.outer) if (sameScope(at, around)) return true;
  return false;
}

/** @param {Port} port @param {string} name @param {Added[]} added @returns {Port} */
function outwards(port, name, added) {
  const { graph, holder, outer } = port.scope;
  const leads = (/** @type {any} */ output) => isFrom(graph, output.linkIds[0], port);
  let slot = graph.outputs.findIndex(leads);
  if (slot < 0) {
    const type = port.node ? port.node.outputs[port.slot].type : graph.inputs[port.slot].type;
    const output = graph.addOutput(unused(graph.outputs, name), String(type));
    added.push({ graph: graph.id, side: "outputs", id: output.id });
    output.connect(port.node.outputs[port.slot], port.node);
    slot = graph.outputs.indexOf(output);
  }
  return { scope: /** @type {Scope} */ (outer), node: holder, slot };
}

/** @param {Port} port @param {Scope} inner @param {string} name @param {Added[]} added
 * @returns {Port}
 */
function inwards(port, inner, name, added) {
  const { graph, holder } = inner;
  const { graph: around } = port.scope;
  const enters = (/** @type {number} */ slot) =>
    isFrom(around, holder.inputs[holderInput(inner, slot)]?.link, port);
  let slot = [...graph.inputs.keys()].findIndex(enters);
  if (slot < 0) {
    const type = port.node ? port.node.outputs[port.slot].type : around.inputs[port.slot].type;
    const input = graph.addInput(unused(graph.inputs, name), String(type));
    added.push({ graph: graph.id, side: "inputs", id: input.id });
    slot = graph.inputs.indexOf(input);
    connect(port, holder, holderInput(inner, slot));
  }
  return { scope: inner, node: null, slot };
}

/** @param {any} graph @param {any} id of a link @param {Port} port */
function isFrom(graph, id, port) {
  const link = id == null ? null : graph.getLink(id);
  const origin = port.node ? port.node.id : graph.inputNode?.id;
  return link && String(link.origin_id) === String(origin) && link.origin_slot === port.slot;
}

/** @param {any[]} slots @param {string} name */
function unused(slots, name) {
  const names = new Set(slots.map((slot) => slot.name));
  let number = 1;
  while (names.has(number === 1 ? name : `${name}_${number}`)) number++;
  return number === 1 ? name : `${name}_${number}`;
}

/** Removes added slots. @param {Map<string, any>} graphs by id @param {Added[]} added */
export function removeSlots(graphs, added) {
  for (const { graph: id, side, id: slot } of [...added].reverse()) {
    const graph = graphs.get(id);
    const found = graph?.[side].find((/** @type {any} */ one) => one.id === slot);
    if (found && side === "inputs") graph.removeInput(found);
    if (found && side === "outputs") graph.removeOutput(found);
  }
}
