// @ts-check
/** Nodes that sample: which they are, what they are given, and where their latent goes. */

import {
  inputNamed,
  inputOfType,
  isActive,
  outputOfType,
  sameScope,
  scopesWithin,
  source,
} from "./sources.js";
import { MASKS, UNREAD } from "./tables.js";

/** @typedef {import("./sources.js").Scope} Scope */
/** @typedef {import("./sources.js").Source} Source */
/** @typedef {{ scope: Scope, node: any }} Sampler */
/** @typedef {{ scope: Scope, node: any, model: number, positive: number }} Given */

const MOST_STEPS = 100; // nodes between a sampler and its decoder
const POSITIVE = ["positive", "cond1", "conditioning"];

/** Takes a MODEL with conditioning or a GUIDER, and has a LATENT in and out. @param {any} node */
export function samples(node) {
  const takes = (/** @type {string} */ type) => inputOfType(node, type) >= 0;
  return (
    !node.isSubgraphNode?.() &&
    outputOfType(node, "LATENT") >= 0 &&
    takes("LATENT") &&
    (takes("GUIDER") || (takes("MODEL") && takes("CONDITIONING")))
  );
}

/** The active sampling nodes within a scope. @param {Scope} scope @returns {Sampler[]} */
export function samplersWithin(scope) {
  return scopesWithin(scope).flatMap((inner) =>
    inner.graph.nodes
      .filter((/** @type {any} */ node) => samples(node) && isActive(node))
      .map((/** @type {any} */ node) => ({ scope: inner, node })),
  );
}

/**
 * The node that a sampler's model and positive conditioning enter: itself or its guider.
 *
 * @param {Sampler} sampler
 * @returns {Given | null}
 */
export function given({ scope, node }) {
  for (let hop = 0; hop < MOST_STEPS; hop++) {
    const model = inputOfType(node, "MODEL");
    const guider = inputOfType(node, "GUIDER");
    if (model >= 0 && guider < 0) return { scope, node, model, positive: positiveOf(node) };
    const found = guider < 0 ? null : source(scope, node, guider);
    if (!found) return null;
    ({ scope, node } = found);
  }
  return null;
}

/** @param {any} node */
function positiveOf(node) {
  const named = POSITIVE.map((name) => inputNamed(node, name)).find((index) => index >= 0);
  return named ?? inputOfType(node, "CONDITIONING");
}

/**
 * The node that decodes a sampler's latent to a picture. Where only further samplers use the
 * latent, the node that decodes their result. Null if there is none.
 *
 * @param {Sampler} sampler
 * @param {Scope} root
 * @returns {Sampler | null}
 */
export function decoderOf(sampler, root) {
  let best = null;
  let least = Number.POSITIVE_INFINITY;
  for (const scope of scopesWithin(root)) {
    for (const node of scope.graph.nodes) {
      if (outputOfType(node, "IMAGE") < 0 || inputOfType(node, "LATENT") < 0) continue;
      if (!isActive(node) || node.type.startsWith("I2AM_")) continue;
      const away = steps({ scope, node }, sampler);
      if (away < least) [best, least] = [{ scope, node }, away];
    }
  }
  return best;
}

/** The number of nodes between a decoder and a sampler; another sampler counts a lot.
 *
 * @param {Sampler} decoder @param {Sampler} sampler
 */
function steps(decoder, sampler) {
  let { scope, node } = decoder;
  let further = false;
  let between = false;
  for (let step = 1; step <= MOST_STEPS; step++) {
    const found = source(scope, node, inputOfType(node, "LATENT"));
    if (!found) break;
    ({ scope, node } = found);
    if (node === sampler.node && sameScope(scope, sampler.scope)) {
      return further && between ? Number.POSITIVE_INFINITY : step + (further ? MOST_STEPS : 0);
    }
    // Between two samplers a latent may be cropped or recombined.
    if (samples(node)) further = true;
    else if (further) between = true;
  }
  return Number.POSITIVE_INFINITY;
}

/**
 * Facts about the latent that enters a sampler: where its mask comes from, and why a model that
 * needs such a latent cannot be watched.
 *
 * @param {Sampler} sampler
 * @returns {{ mask: Source | null, unread: string | null }}
 */
export function latentOf({ scope, node }) {
  let mask = /** @type {Source | null} */ (null);
  for (let step = 0; step < MOST_STEPS; step++) {
    const found = source(scope, node, inputOfType(node, "LATENT"));
    if (!found) break;
    ({ scope, node } = found);
    if (UNREAD[node.type]) return { mask, unread: UNREAD[node.type] };
    const name = MASKS[node.type];
    if (name && !samples(node)) mask ??= source(scope, node, inputNamed(node, name));
  }
  return { mask, unread: null };
}

/** Where a node's VAE comes from. @param {Sampler} sampler @returns {Source | null} */
export const vaeOf = ({ scope, node }) => source(scope, node, inputOfType(node, "VAE"));
