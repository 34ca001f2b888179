// @ts-check
/** The support report on a node, after a run and after a refusal. */

import { after, afterAdded, shown } from "./nodes.js";
import { addPanel, grow } from "./panels.js";
import { SupportReport } from "./support.js";

/** @type {Map<any, SupportReport>} */
const supports = new Map();

/**
 * Offers a node's support report, for users who are asked for it.
 *
 * @param {any} node
 * @param {string} text
 */
export function offerSupport(node, text) {
  if (!node) return;
  let support = supports.get(node);
  if (!support) {
    support = new SupportReport(() => grow(node));
    const added = support;
    supports.set(node, added);
    addPanel(
      node,
      "support",
      added.element,
      () => added.height,
      () => added.height,
    );
    grow(node);
    after(node, "onRemoved", () => {
      supports.get(node)?.destroy();
      supports.delete(node);
    });
  }
  shown.write(node, text);
  const page = /** @type {any} */ (window).__COMFYUI_FRONTEND_VERSION__ ?? "of unknown version";
  const renderer = /** @type {any} */ (window).LiteGraph?.vueNodesMode
    ? "Nodes 2.0"
    : "classic nodes";
  support.tell(`${text}\nPage: frontend ${page}, ${renderer}`);
}

/** Restores the report from before a reload. @param {any} node */
export function restoreSupport(node) {
  afterAdded(node, () => {
    const last = shown.read(node);
    if (last) offerSupport(node, last);
  });
}
