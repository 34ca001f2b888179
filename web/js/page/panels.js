// @ts-check
/** Our elements on a node: as widgets, with room for them. */

// @ts-expect-error: ComfyUI's own file, served beside our folder.
import { app } from "../../../../scripts/app.js";
import { make } from "../viewer/controls.js";

const TEXT_HEIGHT = [44, 220]; // pixels, least and most
const PICTURE_HEIGHT = 230; // about what ComfyUI gives a node's picture
const MIDDLE_BUTTON = 1;

/**
 * Adds an element to a node as a widget; the graph keeps the wheel and the middle button.
 *
 * @param {any} node
 * @param {string} name
 * @param {HTMLElement} element
 * @param {() => number} minHeight
 * @param {(() => number)} [maxHeight]
 */
export function addPanel(node, name, element, minHeight, maxHeight) {
  // The classic renderer lays elements over the graph; Nodes 2.0 passes these events on itself.
  const overGraph = () => element.closest(".dom-widget") !== null;
  element.addEventListener(
    "wheel",
    (event) => {
      if (overGraph() && !scrolls(element, event)) {
        app.canvas.canvas.dispatchEvent(new WheelEvent("wheel", event));
        event.preventDefault();
      }
    },
    { passive: false },
  );
  for (const [type, handle] of [
    ["pointerdown", "processMouseDown"],
    ["pointermove", "processMouseMove"],
    ["pointerup", "processMouseUp"],
  ]) {
    element.addEventListener(type, (event) => {
      const { button, buttons } = /** @type {PointerEvent} */ (event);
      const middle = type === "pointermove" ? (buttons & 4) !== 0 : button === MIDDLE_BUTTON;
      if (middle && overGraph()) app.canvas[handle](event);
    });
  }
  // Nodes 2.0 finds the element by the widget's name, which must differ from every input's.
  const widget = node.addDOMWidget(`i2am_${name}`, `i2am_${name}`, element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: minHeight,
    ...(maxHeight && { getMaxHeight: maxHeight }),
  });
  // The option keeps it out of prompts. In a saved workflow, it would take the place of an input
  // that the node gains later.
  widget.serialize = false;
  return widget;
}

/**
 * Whether something in the element scrolls under the wheel.
 *
 * @param {HTMLElement} element
 * @param {WheelEvent} event
 */
function scrolls(element, event) {
  if (event.ctrlKey || event.metaKey) return false;
  let at = /** @type {HTMLElement | null} */ (event.target);
  for (; at && element.contains(at); at = at.parentElement) {
    const room = at.scrollHeight - at.clientHeight;
    const canScroll = /auto|scroll/.test(getComputedStyle(at).overflowY) && room > 1;
    if (canScroll && (event.deltaY < 0 ? at.scrollTop > 0 : at.scrollTop < room - 1)) return true;
  }
  return false;
}

/**
 * Shows a node's text below its inputs.
 *
 * @param {any} node
 * @param {string[]} texts
 * @param {boolean} pictures whether it shows pictures too
 */
export function showText(node, texts, pictures) {
  let panel = node.widgets?.find(
    (/** @type {any} */ widget) => widget.name === "i2am_text",
  )?.element;
  if (!panel) {
    panel = make("div", { class: "i2am-text", role: "status" });
    const height = () =>
      Math.min(Math.max(lines(panel.textContent) * 17 + 36, TEXT_HEIGHT[0]), TEXT_HEIGHT[1]);
    addPanel(node, "text", panel, height, height);
  }
  panel.textContent = texts.join("\n\n");
  grow(node, pictures ? PICTURE_HEIGHT : 0);
}

/** @param {string} text */
function lines(text) {
  return text.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / 46)), 0);
}

/**
 * Makes room for all widgets of a node.
 *
 * @param {any} node
 * @param {number} more pixels of height
 */
export function grow(node, more = 0) {
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height + more)]);
  node.setDirtyCanvas?.(true, true);
}
