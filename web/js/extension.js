// @ts-check
/** The bridge to ComfyUI: the only file here that knows of nodes, and the only one that acts. */

// @ts-expect-error
import { api } from "../../../scripts/api.js";
// @ts-expect-error: ComfyUI's own, beside our folder on the page.
import { app } from "../../../scripts/app.js";
import { make } from "./controls.js";
import { LiveView } from "./live.js";
import { SupportReport } from "./support.js";
import { AttributionViewer } from "./viewer.js";

const VIEWER = "I2AM_Viewer";
const SUPPORTED = new Set(["I2AM_Capture", "I2AM_Collect"]);
const PROPERTY = "i2am_view";
const SIZE = [640, 620]; // of a new viewer
const MIN_HEIGHT = 340;
const LIVE_HEIGHT = 150;
const TEXT_HEIGHT = [44, 220];
const PICTURE_HEIGHT = 230; // what ComfyUI gives a node's picture, about
const MIDDLE_BUTTON = 1;

/** @type {Map<any, {viewer: AttributionViewer}>} the viewers on the graph, by their node */
const viewers = new Map();
/** @type {Map<any, LiveView>} */
const lives = new Map();
/** @type {Map<any, SupportReport>} */
const supports = new Map();

/** @param {import("./viewer.js").File} file */
const urlOf = (file) => `/view?${new URLSearchParams(/** @type {any} */ ({ ...file }))}`;

/**
 * Calls a function after what a node already does.
 *
 * @param {any} node
 * @param {string} name
 * @param {(...args: any[]) => void} more
 */
function after(node, name, more) {
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
function afterAdded(node, more) {
  after(node, "onAdded", () => queueMicrotask(more));
}

/** The page's memory of what a node showed: it outlives a reload, and is no part of a workflow. */
const shown = {
  /** @param {any} node */
  key: (node) => `i2am.${node.graph?.id}:${node.id}`,
  /** @param {any} node */
  read: (node) => JSON.parse(sessionStorage.getItem(shown.key(node)) ?? "null"),
  /**
   * @param {any} node
   * @param {import("./viewer.js").Output | string} output
   */
  write(node, output) {
    try {
      sessionStorage.setItem(shown.key(node), JSON.stringify(output));
    } catch {
      // Full or forbidden: then it is gone after a reload, as ComfyUI's previews are.
    }
  },
};

/** @param {any} node */
function addViewer(node) {
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
  viewers.set(node, { viewer });
  addPanel(node, "viewer", viewer.element, () => MIN_HEIGHT);
  node.setSize([Math.max(node.size[0], SIZE[0]), Math.max(node.size[1], SIZE[1])]);

  /** @param {import("./viewer.js").Output | undefined} output */
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

/**
 * An element as a widget of a node; wheel and middle button stay the graph's.
 *
 * @param {any} node
 * @param {string} name
 * @param {HTMLElement} element
 * @param {() => number} minHeight
 * @param {(() => number)} [maxHeight]
 */
function addPanel(node, name, element, minHeight, maxHeight) {
  // The classic renderer lays elements over the graph; in Nodes 2.0 nodes hand these on themselves.
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
  // Nodes 2.0 finds the element by the widget's name, which no input may have.
  const widget = node.addDOMWidget(`i2am_${name}`, `i2am_${name}`, element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: minHeight,
    ...(maxHeight && { getMaxHeight: maxHeight }),
  });
  // The option keeps it out of prompts; saved in a workflow, it would take the place of an input
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
 * Shows what a node says below its inputs.
 *
 * @param {any} node
 * @param {string[]} texts
 * @param {boolean} pictures whether it shows pictures too
 */
function showText(node, texts, pictures) {
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
function grow(node, more = 0) {
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height + more)]);
  node.setDirtyCanvas?.(true, true);
}

/**
 * The node a prompt names: "7", or "3:7" for one within a subgraph.
 *
 * @param {string} name
 */
function nodeOf(name) {
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const id of name.split(":")) {
    node = graph?.getNodeById(Number(id)) ?? graph?.getNodeById(id);
    graph = node?.subgraph;
  }
  return node;
}

/** @param {any} message */
function showLive(message) {
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

/**
 * Offers what a node knows of itself, for those who are asked for help.
 *
 * @param {any} node
 * @param {string} text
 */
function offerSupport(node, text) {
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

function addStyles() {
  const href = new URL("../css/i2am.css", import.meta.url).href;
  if (document.querySelector(`link[href="${href}"]`)) return;
  document.head.append(make("link", { rel: "stylesheet", href }));
}

app.registerExtension({
  name: "i2am",
  setup() {
    addStyles();
    api.addEventListener("i2am.live", (/** @type {CustomEvent} */ event) => showLive(event.detail));
    api.addEventListener("i2am.support", (/** @type {CustomEvent} */ { detail }) =>
      offerSupport(nodeOf(detail.node), detail.text),
    );
    api.addEventListener("b_preview", (/** @type {CustomEvent} */ event) => {
      for (const live of lives.values()) live.preview(event.detail);
    });
    api.addEventListener("execution_start", () => {
      for (const { viewer } of viewers.values()) viewer.runStarted();
    });
    for (const how of /** @type {const} */ (["error", "interrupted"])) {
      api.addEventListener(`execution_${how}`, () => {
        for (const { viewer } of viewers.values()) viewer.runStopped(how);
      });
    }
  },
  /** @param {any} node */
  nodeCreated(node) {
    const kind = node.constructor.comfyClass ?? "";
    if (!kind.startsWith("I2AM_")) return;
    after(node, "onExecuted", (output) => {
      if (output.i2am_text) showText(node, output.i2am_text, Boolean(output.images?.length));
      if (output.i2am_support) offerSupport(node, output.i2am_support[0]);
    });
    if (kind === VIEWER) addViewer(node);
    if (SUPPORTED.has(kind)) {
      afterAdded(node, () => {
        const last = shown.read(node);
        if (last) offerSupport(node, last);
      });
    }
  },
  /** @param {Record<string, any>} outputs of the nodes of a run that is opened again */
  onNodeOutputsUpdated(outputs) {
    for (const [node, { viewer }] of viewers) {
      const output = outputs[`${node.graph?.id}:${node.id}`] ?? outputs[node.id];
      if (output?.i2am_viewer) viewer.show(output.i2am_viewer[0]);
    }
  },
});
