// @ts-check
/** What is averaged, and how it is painted: the controls that can be folded away. */

import { make, rangeSlider, select, slider } from "./controls.js";
import { DEFINITIONS, PRESETS, SCALES, WEIGHTS } from "./state.js";
import * as words from "./wording.js";

/** @typedef {import("./answers.js").Answer} Answer */
/** @typedef {import("../maps/payload.js").Header} Header */
/** @typedef {import("./state.js").State} State */

const PART = { min: 0, max: 1, step: 0.05 };

/** @param {(values: Partial<State>) => void} set */
export function settings(set) {
  const steps = rangeSlider("Steps", "Which steps to average", (range) => set({ steps: range }));
  const layers = rangeSlider("Layers", "Which layers to average", (range) =>
    set({ layers: range }),
  );
  const definition = select(
    "Definition",
    "What a map is made of. Model: the model's own attention. Paper: the softmax over one " +
      "picture alone. Effect, if it was recorded: how far the output of attention moves with a " +
      "place left out",
    (value) => set({ definition: /** @type {State["definition"]} */ (value) }),
  );
  const weight = select(
    "Weight",
    "How much each layer counts (layer_weight). Mass: by the attention it gave. Equal: all the " +
      "same. Value: by the height of its values, so that a UNet's coarse layers count most, as " +
      "in the authors' code",
    (value) => set({ weight: /** @type {State["weight"]} */ (value) }),
  );
  const preset = select(
    "Preset",
    "Paper paints maps as the I2AM authors' code does: the paper's definition, layers by value in " +
      "the official order without a UNet's middle block, min-max before and after resizing, cut " +
      "at 0.4, and the complement over the result where the reference is a single token",
    (value) => set({ preset: /** @type {State["preset"]} */ (value) }),
  );
  const head = select("Head", "The mean of all heads, or one (over all steps)", (value) =>
    set({ head: value === "" ? null : Number(value) }),
  );
  const frame = select("Frame", "Which latent frame of the video", (value) =>
    set({ frame: value === "" ? null : Number(value) }),
  );
  const colormap = select(
    "Colours",
    "Jet is for comparing with the paper; it invents edges",
    (value) => set({ colormap: value }),
  );
  const scale = select(
    "Scale",
    "Per map: each map's own lowest to highest. Shared: of all maps of the level. Absolute: the " +
      "same for every run",
    (value) => set({ scale: /** @type {State["scale"]} */ (value) }),
  );
  const opacity = slider("Opacity", "How strongly the colours cover the picture", PART, (value) =>
    set({ opacity: value }),
  );
  const threshold = slider(
    "Outline",
    "A line where the map reaches this part of its range",
    PART,
    (value) => set({ threshold: value }),
  );
  const controls = [
    steps,
    layers,
    definition,
    weight,
    preset,
    head,
    frame,
    colormap,
    scale,
    opacity,
    threshold,
  ];
  const element = make(
    "div",
    { class: "i2am-settings" },
    ...controls.map((control) => control.element),
  );

  return {
    element,
    /**
     * @param {Header} header
     * @param {Answer} answer
     */
    update(header, { choice }) {
      const most = Math.max(...header.heads);
      const byHead = choice.level === "head" || choice.head !== null;
      element.hidden = !choice.settings;
      steps.update(
        choice.steps,
        header.steps.length,
        choice.steps ? words.rangeLabel(header.steps, choice.steps) : "all",
        byHead ? "Heads were kept over all steps" : "",
      );
      layers.update(
        choice.layers,
        header.layers.length,
        choice.layers ? words.rangeLabel(header.layers, choice.layers) : "all",
        "",
      );
      const paper = choice.preset === "paper" ? "The paper's preset has its own" : "";
      const recorded = DEFINITIONS.filter((name) => header.definitions.includes(name));
      definition.update(choice.definition, named(recorded), paper);
      weight.update(choice.weight, named(WEIGHTS), paper);
      preset.update(choice.preset, named(PRESETS));
      head.element.hidden = most < 2;
      head.update(text(choice.head), meanOr(most));
      const side =
        choice.direction === "r2g" ? header.generated : header.references[choice.reference];
      frame.element.hidden = side.frames < 2;
      frame.update(text(choice.frame), meanOr(side.frames));
      colormap.update(choice.colormap, named(Object.keys(header.colormaps)));
      scale.update(choice.scale, named(paper ? [choice.scale] : SCALES), paper);
      opacity.update(choice.opacity, percent(choice.opacity));
      threshold.update(choice.threshold, choice.threshold ? percent(choice.threshold) : "off");
    },
  };
}

/** @param {number | null} number */
function text(number) {
  return number === null ? "" : String(number);
}

/** @param {readonly string[]} names */
function named(names) {
  return names.map((name) => ({ value: name, text: name }));
}

/** @param {number} count */
function meanOr(count) {
  const numbers = Array.from({ length: count }, (_, n) => ({ value: `${n}`, text: `${n}` }));
  return [{ value: "", text: "mean of all" }, ...numbers];
}

/** @param {number} part */
function percent(part) {
  return `${Math.round(part * 100)}%`;
}
