// @ts-check
/** What is shown, as a sentence. */

import { THRESHOLD } from "../maps/imacs.js";
import { number } from "../maps/maps.js";

/** @typedef {import("../maps/payload.js").Header} Header */
/** @typedef {import("../maps/maps.js").Maps} Maps */
/** @typedef {import("./state.js").Fitted} Fitted */
/** @typedef {import("./state.js").Pin} Pin */

const DOT = " · ";

/**
 * @param {Header} header
 * @param {Fitted} choice
 * @param {string} label of the map among those of its level
 */
export function mapSentence(header, choice, label) {
  if (choice.word !== null) {
    const what = `Where “${label}” was attended to`;
    return [what, "the model's attention", "mean of all steps, layers and heads"].join(DOT);
  }
  const name = header.references[choice.reference].label;
  const what = choice.direction === "r2g" ? `Where ${name} was used` : `What was used of ${name}`;
  const byHead = choice.level === "head" || choice.head !== null;
  const parts = [what, definition(choice)];
  if (label) parts.push(label);
  if (choice.level !== "time") {
    const step = stepName(header);
    parts.push(byHead ? `mean of all ${step}s` : some(step, header.steps, choice.steps));
  }
  if (choice.level !== "layer") parts.push(some("layer", header.layers, choice.layers));
  if (choice.head !== null) parts.push(`head ${choice.head}`);
  if (choice.frame !== null) parts.push(`frame ${choice.frame}`);
  if (choice.preset === "paper") {
    parts.push("layers by value", "official order");
    parts.push(
      `${choice.scale.endsWith("complement") ? "complement, " : ""}min-max, cut at ${THRESHOLD}`,
    );
  } else if (choice.weight !== "mass") {
    parts.push(choice.weight === "equal" ? "layers equal" : "layers by value");
  }
  return parts.join(DOT);
}

/**
 * @param {Header} header
 * @param {Fitted} choice
 * @param {Pin} asked
 */
export function pointSentence(header, choice, { side, place }) {
  const name = header.references[choice.reference].label;
  const where = place.kind === "point" ? "place" : "region";
  const what =
    side === "result"
      ? `Where this ${where} of the result looked in ${name}`
      : `What of the result looked at this ${where} of ${name}`;
  const mean = `mean of all ${stepName(header)}s, layers and heads`;
  return [what, definition(choice), mean].join(DOT);
}

/** @param {Header} header */
function stepName({ probed }) {
  return probed ? "noise level" : "step";
}

/** @param {Fitted} choice */
function definition(choice) {
  const words = {
    model: "the model's attention",
    paper: "the paper's definition",
    effect: "the effect of leaving it out",
  };
  return words[choice.definition];
}

/**
 * @param {string} noun
 * @param {{label: string}[]} all
 * @param {[number, number] | null} range
 */
function some(noun, all, range) {
  if (!range) return all.length === 1 ? `${noun} ${all[0].label}` : `all ${noun}s`;
  return `${noun}${range[0] === range[1] ? "" : "s"} ${rangeLabel(all, range)}`;
}

/**
 * @param {{label: string}[]} all
 * @param {[number, number]} range
 */
export function rangeLabel(all, [first, last]) {
  const [from, to] = [all[first].label, all[last].label];
  if (first === last) return from;
  // Groups are named by their ends ("0-2"): take the first of one and the last of the other.
  const stem = /^\d+(-\d+)?$/.test(from) && /^\d+(-\d+)?$/.test(to);
  return stem ? `${from.split("-")[0]}–${to.split("-").at(-1)}` : `${from} – ${to}`;
}

/**
 * @param {[number, number]} range
 * @param {"%" | "×"} unit
 */
export function rangeWords([low, high], unit) {
  return `${number(low, unit)} – ${number(high, unit)}`;
}

/**
 * What the two ends of the colour bar mean.
 *
 * @param {import("./panel.js").Layer} layer
 */
export function rangeEnds({ range, unit, scale }) {
  return range.map((end) => number(end, scale.startsWith("paper") ? "" : unit));
}

/**
 * Explains the definition of a map and its numbers.
 *
 * @param {Header} header
 * @param {Fitted} choice
 * @param {"r2g" | "g2r"} direction
 * @param {boolean} point
 * @param {"%" | "×"} unit
 */
export function explanation(header, choice, direction, point, unit) {
  const { definitions, units } = header.texts;
  if (choice.word !== null && !point) {
    return [`${capital(definitions.words)}.`, `%: ${units.words}.`];
  }
  const keys = !point
    ? [`${choice.definition}.${direction}`]
    : {
        model: ["correspondence", "correspondence.model"],
        paper: ["correspondence"],
        effect: ["correspondence.effect"],
      }[choice.definition];
  const said = keys
    .map((key) => definitions[key])
    .filter(Boolean)
    .join("; ");
  const notes = [`${capital(said)}.`, `${unit}: ${units[unit]}.`];
  const grouped = header.layers.some(({ count }) => count > 1);
  if (!point && choice.weight === "equal" && grouped) {
    notes.push("Groups of layers count the same; within a group layers count by mass.");
  }
  return notes;
}

/** @param {number} share */
export function percent(share) {
  return number(share, "%");
}

/** @param {string} text */
export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
