import assert from "node:assert/strict";
import { test } from "node:test";

import { arranged, picturesOf } from "../../web/js/drawing/pictures.js";

const still = { frames: 1 };
const files = (count, name) => Array.from({ length: count }, (_, n) => `${name} ${n}`);

test("two pictures are put where they are largest", () => {
  const wide = arranged({ width: 620, height: 420 }, [
    [9, 21],
    [9, 21],
  ]);
  assert.ok(wide.stacked);
  const tall = arranged({ width: 620, height: 420 }, [
    [21, 9],
    [21, 9],
  ]);
  assert.ok(!tall.stacked);
  for (const { height, widths, stacked } of [wide, tall]) {
    assert.ok(stacked ? 2 * height <= 420 : widths[0] + widths[1] <= 620);
  }
  const nothing = arranged({ width: 0, height: 0 }, [
    [1, 1],
    [1, 1],
  ]);
  assert.ok(nothing.height > 0);
});

test("each item has its own picture, and a reference one for all or one for each", () => {
  const header = { batch: 3, generated: still, references: [still, still] };
  const output = { result: files(3, "result"), references: [files(1, "one"), files(3, "own")] };
  const of = (choice) => picturesOf(header, output, { frame: null, ...choice });
  assert.deepEqual(of({ item: 2, reference: 0 }), { result: "result 2", reference: "one 0" });
  assert.deepEqual(of({ item: 2, reference: 1 }), { result: "result 2", reference: "own 2" });
  const none = picturesOf(header, { result: [], references: [] }, { item: 0, reference: 0 });
  assert.deepEqual(none, { result: undefined, reference: undefined });
});

test("of a video the picture in the middle of a latent frame", () => {
  const video = { frames: 3, frame_of: [0, 1, 1, 1, 1, 2, 2, 2, 2] };
  const header = { batch: 2, generated: video, references: [video], within: false };
  const output = { result: files(18, "result"), references: [files(9, "clip")] };
  const of = (choice) => picturesOf(header, output, { reference: 0, ...choice });
  assert.deepEqual(of({ item: 0, frame: 0 }), { result: "result 0", reference: "clip 0" });
  assert.deepEqual(of({ item: 1, frame: 2 }), { result: "result 16", reference: "clip 7" });
  assert.equal(of({ item: 1, frame: null }).result, "result 13");
  const itself = { ...header, within: true };
  const both = { result: output.result, references: [output.result] };
  const seen = picturesOf(itself, both, { item: 1, reference: 0, frame: 2 });
  assert.deepEqual(seen, { result: "result 16", reference: "result 16" });
});
