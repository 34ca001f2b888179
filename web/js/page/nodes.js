// @ts-check
/** Nodes of the graph: extending their methods, finding them, and what they showed last. */

// @ts-expect-error: ComfyUI's own file, served beside our folder.
import { app } from "../../../../scripts/app.js";

/**
 * Calls a function after a node's own method.
 *
 * @param {any} node
 * @param {string} name
 * @param {(...args: any[]) => void} more
 */
export function after(node, name, more) {
  const before = node[name];
  node[name] = function (/** @type {any[]} */ ...args) {
    const answer = before?.apply(this, args);
    more.apply(this, args);
    return answer;
  };
}

/**
 * Calls a function once a node is on its graph. Before that, a loaded node knows neither its id nor
 * its graph.
 *
 * @param {any} node
 * @param {() => void} more
 */
export function afterAdded(node, more) {
  after(node, "onAdded", () => queueMicrotask(more));
}

/** What a node showed, kept by the page: it survives a reload and is not part of a workflow. */
export const shown = {
  /** @param {any} node */
  key: (node) => `i2am.${node.graph?.id}:${node.id}`,
  /** @param {any} node */
  read: (node) => JSON.parse(sessionStorage.getItem(shown.key(node)) ?? "null"),
  /**
   * @param {any} node
   * @param {import("../viewer/viewer.js").Output | string} output
   */
  write(node, output) {
    try {
      sessionStorage.setItem(shown.key(node), JSON.stringify(output));
    } catch {
      // Storage is full or forbidden: the output is gone after a reload, like ComfyUI's previews.
    }
  },
};

/**
 * The node with this id in a prompt: "7", or "3:7" inside a subgraph.
 *
 * @param {string} name
 */
export function nodeOf(name) {
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const id of name.split(":")) {
    node = graph?.getNodeById(Number(id)) ?? graph?.getNodeById(id);
    graph = node?.subgraph;
  }
  return node;
}
