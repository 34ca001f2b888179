// @ts-check
/** Adds the nodes that watch a sampler's references, and restores the graph afterwards. */

import { freePlace } from "./places.js";
import { referencesOf } from "./references.js";
import { decoderOf, given, latentOf, vaeOf } from "./samplers.js";
import { inputNamed, outputOfType, sameScope, scopesWithin, source } from "./sources.js";
import { carry, connect, insert, removeSlots, takeOut } from "./wires.js";

/** @typedef {import("./sources.js").Scope} Scope */
/** @typedef {import("./sources.js").Source} Source */
/** @typedef {import("./samplers.js").Sampler} Sampler */
/** @typedef {{ pictures: number, image: boolean, open: string[], viewer: any }} Watched
 *   pictures: references connected. open: what was not found or cannot be watched, in words.
 */
/** @typedef {[graph: string, node: string | number, width: number, height: number]} Size */

const MOST_REFERENCES = 8;
const [CAPTURE, COLLECT, VIEWER, MARK] = [
  ...["I2AM_Capture", "I2AM_Collect", "I2AM_Viewer", "I2AM_MarkRedux"],
];
// Nodes that are inserted into a wire, and the input this wire enters.
const ON_WIRES = /** @type {Record<string, string>} */ ({
  [CAPTURE]: "model",
  [MARK]: "conditioning",
});
const LEAST_WIDTH = 230; // pixels, so that titles can be read
const PLACE = 60; // pixels between a node and one placed beside it

/** The key of a watched sampler on the nodes that watch it. @param {Sampler} sampler */
export const keyOf = ({ scope, node }) => `${scope.graph.id}:${node.id}`;

/** All graphs of a workflow: itself and its subgraphs. @param {any} root @returns {any[]} */
const graphsOf = (root) => [root, ...root.subgraphs.values()];

/** @param {any} node @returns {string[]} the samplers that a node was added to watch */
const keysOn = (node) => node.properties?.i2am_watch?.keys ?? [];

/**
 * The keys on the nodes that watch a sampler, even if it was moved into a subgraph since.
 *
 * @param {Sampler} sampler
 * @param {Scope} root the workflow
 * @returns {string[]} none if it is not watched
 */
export function watchersOf(sampler, root) {
  return scopesWithin(root, () => true).flatMap((scope) =>
    scope.graph.nodes
      .filter((/** @type {any} */ node) => node.type === COLLECT && keysOn(node).length)
      .filter((/** @type {any} */ node) => {
        const from = source(scope, node, inputNamed(node, "samples"));
        return keysOn(node).includes(keyOf(sampler)) || from?.node === sampler.node;
      })
      .flatMap(keysOn),
  );
}

/**
 * Adds the nodes that watch a sampler. Throws an Error before any change if it cannot be watched.
 *
 * @param {Sampler} sampler
 * @param {Scope} root the workflow
 * @param {Scope} home where the viewer is wanted
 * @param {(type: string) => any} make makes a node
 * @returns {Watched}
 */
export function watch(sampler, root, home, make) {
  const entered = given(sampler);
  const link = entered?.scope.graph.getLink(entered.node.inputs[entered.model].link);
  if (!entered || !link) {
    throw new Error(`${sampler.node.title} gets no model. Connect one, then watch it.`);
  }
  const { references, beside, unread } = referencesOf(entered);
  const { mask, unread: unreadLatent } = latentOf(sampler);
  const reason = unread ?? unreadLatent;
  if (reason) throw new Error(`This kind of model cannot be watched: ${reason}.`);
  if (!references.length && beside.length) {
    throw new Error(
      `The model has no tokens of a reference to look at: ${beside.join(" and ")} ` +
        `${beside.length > 1 ? "enter" : "enters"} as channels of the result.`,
    );
  }
  const decoder = decoderOf(sampler, root);
  const scope = decoder ? common(sampler.scope, decoder.scope) : sampler.scope;
  const building = new Building(root.graph, keyOf(sampler), make);
  const { open } = building;

  building.capture(entered, link);
  for (const { mark } of references) if (mark) building.mark(mark);

  const collect = building.add(COLLECT, scope, beside_(anchorOf(sampler, scope)));
  const latent = outputOfType(sampler.node, "LATENT");
  building.wire({ ...sampler, slot: latent }, scope, collect, "samples", "latent");
  if (decoder) {
    const slot = outputOfType(decoder.node, "IMAGE");
    building.wire({ ...decoder, slot }, scope, collect, "image", "picture");
  } else open.push("The finished picture was not found. Connect it to Collect Attribution.");
  if (mask) building.wire(mask, scope, collect, "mask", "mask");
  const pictures = building.references(references, scope, collect);
  if (references.length && references.every(({ centred }) => centred)) {
    choose(collect, "reference_fit", "centre crop");
  }
  const vae = decoder && vaeOf(decoder);
  if (vae && open.length && inputNamed(collect, "vae") >= 0) {
    building.wire(vae, scope, collect, "vae", "vae");
  }

  const shown = common(scope, home);
  const at = sameScope(shown, scope) ? collect : anchorOf(sampler, shown);
  const viewer = building.add(VIEWER, shown, beside_(at));
  const attribution = outputOfType(collect, "I2AM_ATTRIBUTION");
  building.wire({ scope, node: collect, slot: attribution }, shown, viewer, "attribution");
  building.note(collect);
  return { pictures, image: Boolean(decoder), open, viewer };
}

/** Sets a widget, if it offers the value.
 *
 * @param {any} node @param {string} name @param {string} value
 */
function choose(node, name, value) {
  const widget = node.widgets?.find((/** @type {any} */ one) => one.name === name);
  if (widget?.options?.values?.includes(value)) widget.value = value;
}

/** The innermost scope around two. @param {Scope} one @param {Scope} other @returns {Scope} */
function common(one, other) {
  for (let at = /** @type {Scope | null} */ (one); at; at = at.outer) {
    for (let up = /** @type {Scope | null} */ (other); up; up = up.outer) {
      if (sameScope(at, up)) return at;
    }
  }
  throw new Error("Two scopes of different workflows.");
}

/** The sampler, or the subgraph node in a scope around it that holds it.
 *
 * @param {Sampler} sampler @param {Scope} scope
 */
function anchorOf(sampler, scope) {
  let { node } = sampler;
  for (let at = sampler.scope; !sameScope(at, scope); at = /** @type {Scope} */ (at.outer)) {
    node = at.holder;
  }
  return node;
}

/** Right of a node. @param {any} node @returns {[number, number]} */
const beside_ = ({ pos, size }) => [pos[0] + size[0] + PLACE, pos[1]];

/** The nodes and wires added to watch one sampler. */
class Building {
  /** @type {string[]} */
  open = [];
  /** @type {import("./wires.js").Added[]} */
  #slots = [];
  #key;
  #make;
  #before;
  /** @type {Map<any, Size>} the sizes of subgraph nodes, which grow with their slots */
  #sizes = new Map();
  /** @type {[string, number[]][]} by graph */
  #orders;
  /** @type {Map<any, [graph: string, node: string | number, slot: number]>} outputs never linked */
  #unlinked = new Map();

  /** @param {any} root @param {string} key @param {(type: string) => any} make */
  constructor(root, key, make) {
    this.#key = key;
    this.#make = make;
    this.#before = earliest(root);
    this.#orders = graphsOf(root).flatMap(staleOrder);
    for (const graph of graphsOf(root)) {
      for (const node of graph.nodes) {
        const size = /** @type {Size} */ ([graph.id, node.id, node.size[0], node.size[1]]);
        if (node.isSubgraphNode?.()) this.#sizes.set(node, size);
        for (const [slot, output] of (node.outputs ?? []).entries()) {
          if (!output.links) this.#unlinked.set(output, [graph.id, node.id, slot]);
        }
      }
    }
  }

  /** @param {string} type @param {Scope} scope @param {[number, number]} wish where */
  add(type, scope, wish) {
    const node = this.#make(type);
    if (!node) throw new Error(`The page has no node ${type}. Reload it.`);
    node.properties = { ...node.properties, i2am_watch: { keys: [this.#key] } };
    node.setSize([Math.max(node.size[0], LEAST_WIDTH), node.size[1]]);
    node.pos = freePlace(scope.graph, wish, node.size);
    scope.graph.add(node);
    return node;
  }

  /**
   * Puts Capture Attention on a model's wire, unless it is already there.
   *
   * @param {import("./samplers.js").Given} entered
   * @param {any} link
   */
  capture({ scope, node, model }, link) {
    const upper = source(scope, node, model);
    if (upper?.node.type === CAPTURE) {
      const { i2am_watch: before } = upper.node.properties;
      if (before) upper.node.properties.i2am_watch = { keys: [...before.keys, this.#key] };
      return;
    }
    const capture = this.add(CAPTURE, scope, [0, 0]);
    const [width, height] = capture.size;
    const wish = /** @type {[number, number]} */ ([
      ...[node.pos[0] - width - PLACE, node.pos[1] - height - PLACE],
    ]);
    capture.pos = freePlace(scope.graph, wish, capture.size, capture);
    insert(scope.graph, link, capture, "model");
  }

  /** @param {import("./references.js").Mark} mark */
  mark({ wire: { scope, link }, styleModel, vision }) {
    const behind = scope.graph.getNodeById(link.origin_id);
    const wish = behind ? beside_(behind) : /** @type {[number, number]} */ ([0, 0]);
    const node = this.add(MARK, scope, wish);
    insert(scope.graph, link, node, "conditioning");
    this.wire(styleModel, scope, node, "style_model");
    this.wire(vision, scope, node, "clip_vision_output");
  }

  /**
   * Connects the pictures that were found, up to the first one that was not.
   *
   * @param {import("./references.js").Reference[]} references
   * @param {Scope} scope
   * @param {any} collect
   * @returns {number} how many are connected
   */
  references(references, scope, collect) {
    if (!references.length) {
      this.open.push(
        "No reference was found on the positive conditioning. If the model is given one in a way " +
          "this does not know, connect its picture to Collect Attribution.",
      );
    }
    const gap = references.findIndex(({ picture }) => !picture);
    const found = references.slice(0, gap < 0 ? MOST_REFERENCES : Math.min(gap, MOST_REFERENCES));
    for (const [index, { picture }] of found.entries()) {
      const name = `reference_${index + 1}`;
      const input = `references.${name}`;
      this.wire(/** @type {Source} */ (picture), scope, collect, input, name);
    }
    for (const [index, { from }] of references.entries()) {
      if (index < found.length) continue;
      const why = index >= MOST_REFERENCES ? "is more than can be shown" : "was not found";
      this.open.push(`The picture of reference ${index + 1} (${from}) ${why}.`);
    }
    return found.length;
  }

  /**
   * @param {Source | import("./wires.js").Port} from
   * @param {Scope} scope of the node
   * @param {any} node
   * @param {string} input
   * @param {string} [name] of slots that subgraphs may need for it
   */
  wire(from, scope, node, input, name = input) {
    const port = carry(/** @type {Source} */ (from), scope, name, this.#slots);
    connect(port, node, inputNamed(node, input));
  }

  /** Records on a node what to undo. @param {any} node */
  note(node) {
    const grown = [...this.#sizes].filter(([one, [, , width, height]]) => {
      return one.size[0] !== width || one.size[1] !== height;
    });
    node.properties.i2am_watch = {
      ...node.properties.i2am_watch,
      before: this.#before,
      slots: this.#slots,
      orders: this.#orders,
      // The page saves an output that was never linked differently from one that was unlinked.
      unlinked: [...this.#unlinked].filter(([output]) => output.links).map(([, where]) => where),
      // Each with its size now, to leave nodes alone that are resized later.
      sizes: grown.map(([one, size]) => [...size, one.size[0], one.size[1]]),
    };
  }
}

/**
 * The order of a graph's nodes as it was loaded, if the page would number them differently. It does
 * so as soon as a node is added.
 *
 * @param {any} graph
 * @returns {[string, number[]][]}
 */
function staleOrder(graph) {
  const loaded = graph.nodes.map((/** @type {any} */ node) => node.order);
  graph.updateExecutionOrder();
  const same = graph.nodes.every((/** @type {any} */ node, /** @type {number} */ index) => {
    return node.order === loaded[index];
  });
  return same ? [] : [[graph.id, loaded]];
}

/** The last node and link ids before anything was watched. @param {any} root */
function earliest(root) {
  const notes = graphsOf(root).flatMap((graph) =>
    graph.nodes.flatMap((/** @type {any} */ node) => node.properties?.i2am_watch?.before ?? []),
  );
  const nodes = notes.filter((_, index) => index % 2 === 0);
  const links = notes.filter((_, index) => index % 2 === 1);
  const { lastNodeId, lastLinkId } = root.state;
  return [Math.min(lastNodeId, ...nodes), Math.min(lastLinkId, ...links)];
}

/**
 * Removes what watches some samplers, and leads every wire back to where it led before.
 *
 * @param {string[]} keys of the samplers
 * @param {any} root
 */
export function stop(keys, root) {
  const graphs = new Map(graphsOf(root).map((graph) => [graph.id, graph]));
  const notes = [];
  const wires = [];
  for (const graph of graphs.values()) {
    for (const node of [...graph.nodes]) {
      const note = node.properties?.i2am_watch;
      const left = keysOn(node).filter((key) => !keys.includes(key));
      if (!note || left.length === keysOn(node).length) continue;
      if (left.length) {
        node.properties.i2am_watch = { ...note, keys: left };
        continue;
      }
      if (note.before) notes.push(note);
      if (ON_WIRES[node.type]) wires.push([graph, node]);
      else graph.remove(node);
    }
  }
  for (const { slots } of notes.reverse()) removeSlots(graphs, slots);
  for (const [graph, node] of wires.reverse()) takeOut(graph, node, ON_WIRES[node.type]);
  shrink(
    graphs,
    notes.flatMap(({ sizes }) => sizes),
  );
  for (const [id, number, slot] of notes.flatMap(({ unlinked }) => unlinked)) {
    const output = graphs.get(id)?.getNodeById(number)?.outputs[slot];
    if (output && !output.links?.length) output.links = null;
  }
  for (const [id, order] of notes.flatMap(({ orders }) => orders)) {
    const nodes = graphs.get(id)?.nodes ?? [];
    if (nodes.length === order.length)
      for (const [i, node] of nodes.entries()) node.order = order[i];
  }
  for (const { before } of notes) countFrom(root, before);
}

/**
 * Restores the sizes subgraph nodes had before slots were added, unless they were resized since.
 *
 * @param {Map<string, any>} graphs
 * @param {any[]} sizes as recorded; a later watch starts from the size an earlier one left
 */
function shrink(graphs, sizes) {
  const left = [...sizes];
  for (;;) {
    const index = left.findIndex(([graph, id, , , width, height]) => {
      const size = graphs.get(graph)?.getNodeById(id)?.size;
      return size && size[0] === width && size[1] === height;
    });
    if (index < 0) return;
    const [[graph, id, width, height]] = left.splice(index, 1);
    graphs.get(graph).getNodeById(id).setSize([width, height]);
  }
}

/**
 * Resets the last node and link ids, or to the highest still in use.
 *
 * @param {any} root
 * @param {[number, number]} before
 */
function countFrom(root, [node, link]) {
  const all = graphsOf(root);
  const nodes = all.flatMap((graph) => graph.nodes.map((/** @type {any} */ one) => Number(one.id)));
  const links = all.flatMap((graph) => [...graph.links.keys()].map(Number));
  // A node's id may be any text.
  root.state.lastNodeId = Math.max(node, ...nodes.filter(Number.isFinite));
  root.state.lastLinkId = Math.max(link, ...links);
}
