// @ts-check
/** Live maps on the Capture Attention node that a run's messages name. */

import { LiveView } from "./live.js";
import { after, nodeOf } from "./nodes.js";
import { addPanel, grow } from "./panels.js";

const LIVE_HEIGHT = 150;

/** @type {Map<any, LiveView>} */
const lives = new Map();

/** @param {any} message */
export function showLive(message) {
  const node = nodeOf(message.node);
  if (!node) return;
  let live = lives.get(node);
  if (!live) {
    live = new LiveView();
    lives.set(node, live);
    addPanel(node, "live", live.element, () => LIVE_HEIGHT);
    grow(node);
    after(node, "onRemoved", () => {
      lives.get(node)?.destroy();
      lives.delete(node);
    });
  }
  live.tell(message);
}

/** @param {any} blob the latent's preview */
export function showPreview(blob) {
  for (const live of lives.values()) live.preview(blob);
}
