// @ts-check
/** The entry point: the only module with effects on load. It passes the page's events on. */

// @ts-expect-error: ComfyUI's own file, served beside our folder.
import { api } from "../../../scripts/api.js";
// @ts-expect-error
import { app } from "../../../scripts/app.js";
import { addViewer, runStarted, runStopped, showOutputs } from "./page/attribution_viewer.js";
import { keepHistory } from "./page/imacs_history.js";
import { showLive, showPreview } from "./page/live_node.js";
import { foldAdvanced } from "./page/more_settings.js";
import { after, nodeOf } from "./page/nodes.js";
import { showText } from "./page/panels.js";
import { sayValues } from "./page/special_values.js";
import { offerSupport, restoreSupport } from "./page/support_node.js";
import { make } from "./viewer/controls.js";
import { commands, menuOf, nameCommands } from "./watch/offer.js";

const SUPPORTED = new Set(["I2AM_Capture", "I2AM_Collect", "I2AM_Probe"]);

function addStyles() {
  for (const sheet of ["i2am", "viewer"]) {
    const href = new URL(`../css/${sheet}.css`, import.meta.url).href;
    if (document.querySelector(`link[href="${href}"]`)) continue;
    document.head.append(make("link", { rel: "stylesheet", href }));
  }
}

/**
 * @param {string} name
 * @param {(detail: any) => void} handle
 */
function listen(name, handle) {
  api.addEventListener(name, (/** @type {CustomEvent} */ event) => handle(event.detail));
}

app.registerExtension({
  name: "i2am",
  commands,
  getNodeMenuItems: menuOf,
  setup() {
    addStyles();
    api.getCustomNodesI18n?.().then(nameCommands, () => {});
    listen("i2am.live", showLive);
    listen("i2am.support", ({ node, text }) => offerSupport(nodeOf(node), text));
    listen("b_preview", showPreview);
    listen("execution_start", runStarted);
    listen("execution_error", () => runStopped("error"));
    listen("execution_interrupted", () => runStopped("interrupted"));
  },
  /** @param {any} node */
  nodeCreated(node) {
    const kind = node.constructor.comfyClass ?? "";
    if (!kind.startsWith("I2AM_")) return;
    sayValues(node, kind);
    foldAdvanced(node);
    after(node, "onExecuted", (output) => {
      if (output.i2am_text) showText(node, output.i2am_text, Boolean(output.images?.length));
      if (output.i2am_support) offerSupport(node, output.i2am_support[0]);
    });
    if (kind === "I2AM_Viewer") addViewer(node);
    if (kind === "I2AM_IMACS") keepHistory(node);
    if (SUPPORTED.has(kind)) restoreSupport(node);
  },
  onNodeOutputsUpdated: showOutputs,
});
