// @ts-check
/** The commands in a node's menu and in the command palette, and their messages. */

// @ts-expect-error: ComfyUI's own file, served beside our folder.
import { app } from "../../../../scripts/app.js";
import { referencesOf } from "./references.js";
import { given, samplersWithin, samples } from "./samplers.js";
import { innerScope, rootScope } from "./sources.js";
import { stop, watch, watchersOf } from "./watch.js";

/** @typedef {import("./sources.js").Scope} Scope */
/** @typedef {import("./samplers.js").Sampler} Sampler */

const WATCH = "Watch the references (I2AM)";
const STOP = "Stop watching the references (I2AM)";
const SECONDS = 8;

/** The names of the commands in the page's language. */
const names = { watch: WATCH, stop: STOP };

/**
 * Reads the names of the commands from the server's translations for nodes.
 *
 * @param {Record<string, any>} translations by language
 */
export function nameCommands(translations) {
  const { commands: found } = translations[app.extensionManager.setting.get("Comfy.Locale")] ?? {};
  names.watch = found?.I2AM_Watch?.label ?? WATCH;
  names.stop = found?.I2AM_StopWatching?.label ?? STOP;
}

const workflow = () => app.rootGraph ?? app.graph;

/** @param {Sampler} sampler */
const isWatched = (sampler) => watchersOf(sampler, rootScope(workflow())).length > 0;

/** The scope of a graph: the first one, if its subgraph is used in several places.
 *
 * @param {any} graph @param {Scope} [from] @returns {Scope | null}
 */
function scopeOf(graph, from = rootScope(workflow())) {
  if (from.graph === graph) return from;
  for (const node of from.graph.nodes) {
    const found = node.isSubgraphNode?.() ? scopeOf(graph, innerScope(from, node)) : null;
    if (found) return found;
  }
  return null;
}

/** The samplers a node stands for: itself, or those in its subgraph.
 *
 * @param {any} node @param {Scope} scope @returns {Sampler[]}
 */
function samplersOf(node, scope) {
  if (node.isSubgraphNode?.()) return samplersWithin(innerScope(scope, node));
  return samples(node) ? [{ scope, node }] : [];
}

/** The entries of a node's menu. @param {any} node */
export function menuOf(node) {
  const scope = scopeOf(node.graph);
  const samplers = scope ? samplersOf(node, scope) : [];
  const watched = samplers.filter((sampler) => isWatched(sampler));
  const items = [];
  if (watched.length < samplers.length) {
    items.push({ content: names.watch, callback: () => watchAll(samplers) });
  }
  if (watched.length) items.push({ content: names.stop, callback: () => stopAll(watched) });
  return items;
}

export const commands = [
  {
    id: "I2AM.Watch",
    label: WATCH,
    icon: "pi pi-eye",
    function: () => watchAll(chosen()),
  },
  {
    id: "I2AM.StopWatching",
    label: STOP,
    icon: "pi pi-eye-slash",
    function: () => stopAll(chosen()),
  },
];

/** The selected samplers, or else all samplers on the open graph. */
function chosen() {
  const scope = scopeOf(app.canvas.graph);
  if (!scope) return [];
  const selected = Object.values(app.canvas.selected_nodes ?? {});
  const meant = selected.flatMap((node) => samplersOf(node, scope));
  return meant.length ? meant : samplersWithin(scope);
}

/**
 * The samplers with references, or all if none has any. One in a subgraph that is used in several
 * places counts once.
 *
 * @param {Sampler[]} all
 */
function worthIt(all) {
  const samplers = [...new Map(all.map((sampler) => [sampler.node, sampler])).values()];
  const some = samplers.filter((sampler) => {
    const entered = given(sampler);
    return entered && referencesOf(entered).references.length;
  });
  return some.length ? some : samplers;
}

/** @param {Sampler[]} all */
function watchAll(all) {
  const root = workflow();
  const home = scopeOf(app.canvas.graph);
  const samplers = worthIt(all.filter((sampler) => !isWatched(sampler)));
  if (!samplers.length || !home) {
    say("info", all.length ? "It is watched already." : "No node that samples runs on this graph.");
    return;
  }
  const watched = /** @type {import("./watch.js").Watched[]} */ ([]);
  const refused = /** @type {Sampler[]} */ ([]);
  const reasons = /** @type {string[]} */ ([]);
  const make = (/** @type {string} */ type) =>
    /** @type {any} */ (window).LiteGraph.createNode(type);
  change(() => {
    for (const sampler of samplers) {
      try {
        watched.push(watch(sampler, rootScope(root), home, make));
      } catch (error) {
        refused.push(sampler);
        reasons.push(/** @type {Error} */ (error).message);
      }
    }
  });
  if (refused.length) say("warn", `Not watched: ${named(refused)}`, reasons);
  if (!watched.length) return;
  const pictures = watched.reduce((sum, one) => sum + one.pictures, 0);
  const open = watched.flatMap((one) => one.open);
  const found = pictures === 1 ? "1 reference picture" : `${pictures} reference pictures`;
  const names = named(samplers.filter((sampler) => !refused.includes(sampler)));
  const headline = `Watching ${names}: ${found} connected. Press Run.`;
  say(open.length ? "warn" : "success", headline, open);
  const here = watched
    .map(({ viewer }) => viewer)
    .filter(({ graph }) => graph === app.canvas.graph);
  if (here.length) app.canvas.selectItems?.(here);
}

/** @param {Sampler[]} samplers */
function named(samplers) {
  return samplers.length === 1 ? samplers[0].node.title : `${samplers.length} samplers`;
}

/** @param {Sampler[]} samplers */
function stopAll(samplers) {
  const root = workflow();
  const keys = samplers.flatMap((sampler) => watchersOf(sampler, rootScope(root)));
  if (keys.length) change(() => stop(keys, root));
  else say("info", "Nothing is watched here.");
}

/** Makes a change that is one step for undo. @param {() => void} what */
function change(what) {
  // Earlier changes that are not recorded yet become a step of their own.
  app.canvas.emitBeforeChange();
  app.canvas.emitAfterChange();
  app.canvas.emitBeforeChange();
  try {
    what();
  } finally {
    app.canvas.emitAfterChange();
    app.canvas.setDirty(true, true);
  }
}

/**
 * @param {"success" | "info" | "warn"} severity
 * @param {string} summary
 * @param {string[]} [details] each is shown once
 */
function say(severity, summary, details = []) {
  const life = 1000 * (details.length ? 2 * SECONDS : SECONDS);
  const detail = [...new Set(details)].join("\n");
  app.extensionManager.toast.add({ severity, summary, detail, life });
}
