import assert from "node:assert/strict";
import { test } from "node:test";

import { fit, INITIAL, readState, reduce } from "../../web/js/viewer/state.js";

const side = { grid: [4, 4], covered: [4, 4], size: [64, 64], frames: 1 };
const header = {
  batch: 2,
  definition: "model",
  definitions: ["paper", "model"],
  steps: [{}, {}, {}, {}],
  layers: [{}, {}, {}],
  heads: [2, 2, 4],
  generated: side,
  references: [
    { ...side, has_places: true },
    { ...side, has_places: false },
  ],
  correspondence: [{}, null],
  colormaps: { inferno: "", viridis: "" },
  words: [],
};
const pin = { side: "result", place: { kind: "point", x: 0.25, y: 0.5 } };

test("a state survives being saved", () => {
  let state = reduce(INITIAL, { type: "pin", pin });
  state = reduce(state, {
    type: "set",
    values: { steps: [1, 2], colormap: "viridis", opacity: 1 },
  });
  assert.deepEqual(readState(JSON.parse(JSON.stringify(state))), state);
  for (const place of [
    { kind: "rectangle", left: 0, top: 0.1, right: 0.5, bottom: 1 },
    {
      kind: "brush",
      points: [
        [0, 0],
        [0.5, 1],
      ],
      radius: 0.04,
      aspect: 2,
    },
  ]) {
    const region = { ...INITIAL, pin: { side: "reference", place } };
    assert.deepEqual(readState(JSON.parse(JSON.stringify(region))), region);
  }
});

test("what is not understood is as at first", () => {
  for (const saved of [undefined, null, "text", 7, [], {}])
    assert.deepEqual(readState(saved), INITIAL);
  const broken = {
    item: -1,
    level: "everything",
    steps: [3, 1],
    opacity: 7,
    pin: { side: "left", place: pin.place },
    head: "1",
  };
  assert.deepEqual(readState(broken), INITIAL);
  for (const place of [
    null,
    {},
    { kind: "point", x: 2, y: 0 },
    { kind: "brush", points: [], radius: 0, aspect: 1 },
  ]) {
    assert.equal(readState({ pin: { side: "result", place } }).pin, null);
  }
});

test("a state is replaced, never edited", () => {
  const state = Object.freeze({ ...INITIAL });
  const next = reduce(state, { type: "set", values: { level: "time" } });
  assert.notEqual(next, state);
  assert.equal(state.level, "unified");
});

test("heads and steps exclude each other, the later wish counts", () => {
  const some = reduce(INITIAL, { type: "set", values: { steps: [0, 1] } });
  const head = reduce(some, { type: "set", values: { head: 3 } });
  assert.deepEqual([head.head, head.steps], [3, null]);
  assert.equal(reduce(head, { type: "set", values: { steps: [0, 1] } }).head, null);
  assert.equal(reduce(head, { type: "set", values: { level: "time" } }).head, null);
  assert.equal(reduce(some, { type: "set", values: { level: "head" } }).steps, null);
  const time = reduce(INITIAL, { type: "set", values: { level: "time" } });
  assert.equal(reduce(time, { type: "set", values: { head: 1 } }).level, "unified");
});

test("a pin on a reference goes with it; one on the result stays", () => {
  const onResult = reduce(INITIAL, { type: "pin", pin });
  assert.deepEqual(reduce(onResult, { type: "set", values: { reference: 1 } }).pin, pin);
  const onReference = reduce(INITIAL, { type: "pin", pin: { ...pin, side: "reference" } });
  assert.equal(reduce(onReference, { type: "set", values: { reference: 1 } }).pin, null);
  assert.equal(reduce(onResult, { type: "clear" }).pin, null);
});

test("playing goes round", () => {
  const last = { ...INITIAL, map: 3 };
  assert.equal(reduce(last, { type: "move", by: 1, count: 4 }).map, 0);
  assert.equal(reduce(INITIAL, { type: "move", by: -1, count: 4 }).map, 3);
});

test("a payload shows of a wish what it has", () => {
  const wish = {
    ...INITIAL,
    item: 7,
    reference: 0,
    steps: [2, 9],
    layers: [0, 9],
    head: 9,
    frame: 2,
    colormap: "unknown",
  };
  const shown = fit(wish, header);
  assert.equal(shown.item, 1);
  assert.equal(shown.definition, "model");
  assert.deepEqual(shown.steps, [2, 3]);
  assert.equal(shown.layers, null);
  assert.equal(shown.head, null);
  assert.equal(shown.frame, null);
  assert.equal(shown.colormap, "inferno");
});

test("the paper's preset goes before what was chosen, and gives it back", () => {
  const chosen = {
    ...INITIAL,
    preset: "paper",
    definition: "model",
    weight: "equal",
    scale: "shared",
  };
  const shown = fit(chosen, header);
  assert.deepEqual([shown.definition, shown.weight, shown.scale], ["paper", "value", "paper"]);
  const again = fit(reduce(chosen, { type: "set", values: { preset: "as chosen" } }), header);
  assert.deepEqual([again.definition, again.weight, again.scale], ["model", "equal", "shared"]);
  const one = { ...header, references: [{ ...side, grid: [1, 1], has_places: false }] };
  assert.equal(fit(chosen, { ...one, correspondence: [null] }).scale, "paper, complement");
});

test("a reference without places has no map over it, and no places to ask about", () => {
  const shown = fit({ ...INITIAL, reference: 1, direction: "g2r", pin }, header);
  assert.equal(shown.direction, "r2g");
  assert.equal(shown.pin, null);
});

test("a definition that was not recorded is not shown", () => {
  const chosen = { ...INITIAL, definition: "effect" };
  assert.equal(fit(chosen, header).definition, "model");
  const all = { ...header, definitions: ["paper", "model", "effect"] };
  assert.equal(fit(chosen, all).definition, "effect");
});

test("a word is kept where the payload has it; words alone show the first", () => {
  const words = [{ text: "cat" }, { text: "dog" }];
  const some = { ...header, words };
  assert.equal(fit({ ...INITIAL, word: 1 }, some).word, 1);
  assert.equal(fit({ ...INITIAL, word: 7 }, some).word, null);
  assert.equal(fit({ ...INITIAL, word: 1 }, header).word, null);
  const alone = [{ ...side, has_places: false, absent: true }];
  const only = { ...some, references: alone, correspondence: [null] };
  assert.equal(fit(INITIAL, only).word, 0);
  assert.deepEqual(fit({ ...INITIAL, pin }, only).pin, pin);
  assert.equal(fit({ ...INITIAL, pin: { ...pin, side: "reference" } }, only).pin, null);
});
