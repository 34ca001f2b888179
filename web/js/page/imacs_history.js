// @ts-check
/** A table of the last runs' scores on an IMACS node, for comparing settings. */

import { make } from "../viewer/controls.js";
import { after } from "./nodes.js";

/**
 * The scores of one run, as the node sends them.
 *
 * @typedef {object} Entry
 * @property {(number | null)[]} imacs_generated
 * @property {(number | null)[]} imacs_reference
 * @property {Record<string, any>} settings
 * @property {Record<string, any>} run
 */

const PROPERTY = "i2am_imacs_history"; // saved with the workflow
const LENGTH = 8;
const ROW_HEIGHT = 18;

/** The mean over the batch, in words. @param {(number | null)[]} values */
function mean(values) {
  const numbers = /** @type {number[]} */ (values.filter((value) => value !== null));
  if (!numbers.length) return "–";
  const found = numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
  return (found >= 0 ? "+" : "−") + Math.abs(found).toFixed(3);
}

/** @param {Entry} entry */
function words({ settings, run }) {
  return [
    `seed ${run.seed ?? "?"}`,
    `λ ${settings.penalty}`,
    settings.preset,
    settings.threshold !== null && `cut ${settings.threshold}`,
    `ref ${settings.reference}`,
    settings.definition,
    `${run.steps} steps`,
    settings.complement && "complement",
    settings.within_mask && "within mask",
  ]
    .filter(Boolean)
    .join(" · ");
}

/**
 * The history with one more run, newest first. A result sent again from ComfyUI's cache is not a
 * new run.
 *
 * @param {Entry[]} history
 * @param {Entry} entry
 */
export function added(history, entry) {
  if (JSON.stringify(history[0]) === JSON.stringify(entry)) return history;
  return [entry, ...history].slice(0, LENGTH);
}

/** @param {Entry[]} history */
export function rows(history) {
  return history.map((entry) => [
    mean(entry.imacs_generated),
    mean(entry.imacs_reference),
    words(entry),
  ]);
}

/** @param {any} node */
function show(node) {
  const history = /** @type {Entry[]} */ (node.properties?.[PROPERTY] ?? []);
  if (!history.length) return;
  let table = node.widgets?.find((/** @type {any} */ widget) => widget.name === PROPERTY)?.element;
  if (!table) {
    // Nothing in it is clickable: the graph keeps the wheel and the pointer.
    table = make("table", { class: "i2am-history" });
    const widget = node.addDOMWidget(PROPERTY, "i2am_history", table, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => (table.rows.length + 0.5) * ROW_HEIGHT,
    });
    widget.serialize = false; // the option keeps it out of prompts, this line out of workflows
  }
  const line = (/** @type {string[]} */ cells, /** @type {"th" | "td"} */ kind) =>
    make("tr", {}, ...cells.map((cell) => make(kind, {}, cell)));
  table.replaceChildren(
    line(["result", "reference", "last runs"], "th"),
    ...rows(history).map((cells) => line(cells, "td")),
  );
  const needed = node.computeSize();
  node.setSize([Math.max(node.size[0], needed[0]), Math.max(node.size[1], needed[1])]);
}

/** Keeps the history table of an IMACS node. @param {any} node */
export function keepHistory(node) {
  after(node, "onExecuted", (output) => {
    if (!output?.i2am?.[0]) return;
    node.properties[PROPERTY] = added(node.properties[PROPERTY] ?? [], output.i2am[0]);
    show(node);
  });
  after(node, "onConfigure", () => show(node));
}
