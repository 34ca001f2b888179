/** What is shown, as a sentence: of a run, and of a finished picture that was probed. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { mapSentence, pointSentence } from "../../web/js/viewer/wording.js";

const STEPS = ["0", "1", "2", "3"].map((label) => ({ label, sigma: 1, count: 1 }));
const CHOICE = {
  ...{ reference: 0, direction: "r2g", definition: "model", level: "unified", head: null },
  ...{ steps: null, layers: null, frame: null, word: null, preset: "", weight: "mass", scale: "" },
};

/** @param {boolean} probed */
function header(probed) {
  const layers = [{ label: "double 0" }, { label: "double 1" }];
  return { probed, steps: STEPS, layers, references: [{ label: "reference 1" }] };
}

/** @type {(probed: boolean, choice?: object) => string} */
const said = (probed, choice = {}) =>
  mapSentence(
    /** @type {any} */ (header(probed)),
    /** @type {any} */ ({ ...CHOICE, ...choice }),
    "",
  );

test("steps are called noise levels where nothing was sampled", () => {
  assert.match(said(false), / · all steps · all layers$/);
  assert.match(said(true), / · all noise levels · all layers$/);
  assert.match(said(true, { steps: [1, 2] }), / · noise levels 1–2 · all layers$/);
  assert.match(said(true, { level: "head" }), / · mean of all noise levels · /);
});

test("of a point too", () => {
  const asked = /** @type {any} */ ({ side: "result", place: { kind: "point" } });
  const of = (/** @type {boolean} */ probed) =>
    pointSentence(/** @type {any} */ (header(probed)), /** @type {any} */ (CHOICE), asked);
  assert.match(of(false), / · mean of all steps, layers and heads$/);
  assert.match(of(true), / · mean of all noise levels, layers and heads$/);
});

test("a word is named, and that its map is a mean of everything", () => {
  const choice = /** @type {any} */ ({ ...CHOICE, word: 0 });
  assert.equal(
    mapSentence(/** @type {any} */ (header(false)), choice, "cat"),
    "Where “cat” was attended to · the model's attention · mean of all steps, layers and heads",
  );
});
