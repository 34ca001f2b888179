// @ts-check
/**
 * Rarely used widgets fold away behind one button, in the classic renderer.
 *
 * Nodes 2.0 folds advanced inputs by itself, with a button of its own. Both use
 * `node.showAdvanced`, which the page saves in the workflow, so a node looks the same in both.
 */

const NAME = "i2am_more";

/** Whether the page folds widgets by itself. */
const pageFolds = () => Boolean(/** @type {any} */ (window).LiteGraph?.vueNodesMode);

/** @param {any} node */
export function foldAdvanced(node) {
  const widgets = (node.widgets ?? []).filter((/** @type {any} */ w) => w.options?.advanced);
  if (!widgets.length) return;
  for (const widget of widgets) {
    // A wire must not lead to a hidden widget.
    const linked = () =>
      node.inputs?.some(
        (/** @type {any} */ slot) => slot.widget?.name === widget.name && slot.link,
      );
    Object.defineProperty(widget, "hidden", {
      configurable: true,
      get: () => !pageFolds() && !node.showAdvanced && !linked(),
      set: () => {},
    });
  }
  // Last, so that the saved values of the inputs keep their positions.
  const button = node.addWidget("button", NAME, null, () => toggle(node), {
    serialize: false,
    canvasOnly: true,
  });
  button.serialize = false;
  Object.defineProperty(button, "label", {
    configurable: true,
    get: () => (node.showAdvanced ? "Fewer settings" : "More settings"),
    set: () => {},
  });
  if (!pageFolds()) node.setSize([node.size[0], node.computeSize()[1]]);
}

/**
 * Shows or folds the widgets, and adjusts the node's height.
 *
 * @param {any} node
 */
function toggle(node) {
  const before = node.computeSize()[1];
  node.showAdvanced = !node.showAdvanced;
  const height = node.size[1] + node.computeSize()[1] - before;
  node.setSize([node.size[0], Math.max(height, node.computeSize()[1])]);
  node.setDirtyCanvas?.(true, true);
  node.graph?.change?.();
}
