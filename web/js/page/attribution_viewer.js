// @ts-check
/** The Attribution Viewer on its node: files, saved state, and messages from runs. */

// @ts-expect-error: ComfyUI's own file, served beside our folder.
import { api } from "../../../../scripts/api.js";
// @ts-expect-error: ComfyUI's own file, served beside our folder.
import { app } from "../../../../scripts/app.js";
import { AttributionViewer } from "../viewer/viewer.js";
import { after, afterAdded, shown } from "./nodes.js";
import { addPanel } from "./panels.js";

const PROPERTY = "i2am_view";
const SIZE = [640, 620]; // pixels of a new viewer
const MIN_HEIGHT = 340;

/** @type {Map<any, AttributionViewer>} the viewers on the graph, by their node */
const viewers = new Map();

/** @param {import("../viewer/viewer.js").File} file */
const urlOf = (file) => `/view?${new URLSearchParams(/** @type {any} */ ({ ...file }))}`;

/** @param {any} node */
export function addViewer(node) {
  const viewer = new AttributionViewer(
    {
      urlOf: (file) => api.apiURL(urlOf(file)),
      fetch: (file, signal) => api.fetchApi(urlOf(file), { signal }),
      save(state) {
        node.properties[PROPERTY] = state;
        const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
        (tracker?.captureCanvasState ?? tracker?.checkState)?.call(tracker);
      },
      upload,
    },
    node.properties?.[PROPERTY],
  );
  viewers.set(node, viewer);
  addPanel(node, "viewer", viewer.element, () => MIN_HEIGHT);
  node.setSize([Math.max(node.size[0], SIZE[0]), Math.max(node.size[1], SIZE[1])]);

  /** @param {import("../viewer/viewer.js").Output | undefined} output */
  const show = (output) => {
    if (!output) return;
    shown.write(node, output);
    viewer.show(output);
  };
  after(node, "onExecuted", (output) => show(output.i2am_viewer?.[0]));
  after(node, "onConfigure", () => viewer.restore(node.properties?.[PROPERTY]));
  afterAdded(node, () => {
    const last = shown.read(node);
    if (last) viewer.show(last);
  });
  after(node, "onRemoved", () => {
    viewers.delete(node);
    viewer.destroy();
  });
}

/**
 * @param {Blob} png
 * @param {string} name
 */
async function upload(png, name) {
  const body = new FormData();
  body.append("image", new File([png], name, { type: "image/png" }));
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  await app.refreshComboInNodes?.();
  return (await answer.json()).name;
}

/** Tells all viewers that a run has started. */
export function runStarted() {
  for (const viewer of viewers.values()) viewer.runStarted();
}

/** @param {"error" | "interrupted"} how */
export function runStopped(how) {
  for (const viewer of viewers.values()) viewer.runStopped(how);
}

/** @param {Record<string, any>} outputs by node, of a run that is reopened */
export function showOutputs(outputs) {
  for (const [node, viewer] of viewers) {
    const output = outputs[`${node.graph?.id}:${node.id}`] ?? outputs[node.id];
    if (output?.i2am_viewer) viewer.show(output.i2am_viewer[0]);
  }
}
