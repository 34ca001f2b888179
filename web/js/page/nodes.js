// @ts-check
/** Nodes of the graph: following what they do, finding them, and what they showed last. */

// @ts-expect-error: ComfyUI's own, beside our folder on the page.
import { app } from "../../../../scripts/app.js";

/**
 * Calls a function after what a node already does.
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
 * Calls a function when a node is on its graph: before, one that is loaded knows neither its number
 * nor its graph.
 *
 * @param {any} node
 * @param {() => void} more
 */
export function afterAdded(node, more) {
  after(node, "onAdded", () => queueMicrotask(more));
}

/** The page's memory of what a node showed: it outlives a reload, and is no part of a workflow. */
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
      // Full or forbidden: then it is gone after a reload, as ComfyUI's previews are.
    }
  },
};

/**
 * The node a prompt names: "7", or "3:7" for one within a subgraph.
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
