// @ts-check
/** Special widget values, shown in words on the node; the value itself does not change. */

/** @type {Record<string, Record<string, (value: number) => string>>} by node and widget */
const NUMBERS = {
  I2AM_Map: {
    frame: (value) =>
      ({ "-2": "every frame", "-1": "mean of all frames" })[value] ?? `frame ${value}`,
  },
  I2AM_Point: { asked: (value) => (value === 0 ? "by x, y" : `point ${value}`) },
  I2AM_Compare: {
    other_reference: (value) => (value === 0 ? "the same number" : `reference ${value}`),
  },
};

/** @type {Record<string, Record<string, Record<string, string>>>} by node, widget and value */
const CHOICES = { I2AM_Map: { preset: { "as chosen": "as set here", paper: "as in the paper" } } };

/**
 * @param {any} node
 * @param {string} kind the node's id
 */
export function sayValues(node, kind) {
  for (const widget of node.widgets ?? []) {
    const words = NUMBERS[kind]?.[widget.name];
    if (words) sayNumber(widget, words);
    const choices = CHOICES[kind]?.[widget.name];
    if (choices) {
      widget.options.getOptionLabel = (/** @type {string | null} */ value) =>
        choices[value ?? ""] ?? value ?? "";
    }
  }
}

/**
 * The classic renderer shows words in place of the number. Nodes 2.0 has an input field there, so
 * the words follow the widget's name.
 *
 * @param {any} widget
 * @param {(value: number) => string} words
 */
function sayNumber(widget, words) {
  const name = widget.label ?? widget.name;
  const inWords = () => words(Number(widget.value));
  Object.defineProperty(widget, "_displayValue", {
    configurable: true,
    get: () => (widget.computedDisabled ? "" : inWords()),
  });
  const update = () => {
    const vue = Boolean(/** @type {any} */ (window).LiteGraph?.vueNodesMode);
    widget.label = vue ? `${name}: ${inWords()}` : name;
  };
  const callback = widget.callback;
  widget.callback = function (/** @type {any[]} */ ...args) {
    const answer = callback?.apply(this, args);
    update();
    return answer;
  };
  queueMicrotask(update);
}
