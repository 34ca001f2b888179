import assert from "node:assert/strict";
import { test } from "node:test";
import { inflateSync } from "node:zlib";
import { outline } from "../../web/js/drawing/paint.js";
import { maskPng } from "../../web/js/drawing/png.js";
import { cellAt, coverage, makeGrid, rectangleOf, resample } from "../../web/js/maps/grid.js";
import { number, stretch } from "../../web/js/maps/maps.js";
import { PayloadError, parsePayload } from "../../web/js/maps/payload.js";

const grid = makeGrid([3, 4], [2.5, 4]);

test("every point is in the cell that is drawn around it", () => {
  for (let y = 0; y <= 1; y += 0.05) {
    for (let x = 0; x <= 1; x += 0.05) {
      const { left, top, right, bottom } = rectangleOf(grid, cellAt(grid, x, y));
      assert.ok(left <= x + 1e-9 && x <= right + 1e-9 && top <= y + 1e-9 && y <= bottom + 1e-9);
    }
  }
});

test("a rectangle covers its cells by their parts", () => {
  const half = { kind: "rectangle", left: 0, top: 0, right: 0.125, bottom: 1 };
  const weights = coverage(grid, half);
  assert.deepEqual([...weights], [0.5, 0, 0, 0, 0.5, 0, 0, 0, 0.5, 0, 0, 0]);
});

test("a brush covers what lies along its line, and never nothing", () => {
  const square = makeGrid([8, 8], [8, 8]);
  const line = {
    kind: "brush",
    points: [
      [0.1, 0.5],
      [0.9, 0.5],
    ],
    radius: 0.07,
    aspect: 1,
  };
  const weights = coverage(square, line);
  assert.ok(weights[3 * 8 + 4] > 0 && weights[4 * 8 + 4] > 0);
  assert.equal(weights[0], 0);
  const speck = { kind: "brush", points: [[0.99, 0.01]], radius: 0, aspect: 1 };
  assert.equal(coverage(square, speck)[7], 1);
  const nothing = { kind: "rectangle", left: 0.3, top: 0.3, right: 0.3, bottom: 0.3 };
  assert.equal(coverage(square, nothing)[2 * 8 + 2], 1);
});

test("a flat map stays flat at any size", () => {
  for (const pixels of resample(new Float32Array(12).fill(3), grid, 17, 2)) {
    assert.ok(Math.abs(pixels - 3) < 1e-5);
  }
});

test("rounding noise is not stretched into a pattern", () => {
  assert.equal(stretch(1, 1.0005), 0);
  assert.equal(stretch(0, 0), 0);
  assert.equal(stretch(1, 3), 0.5);
});

test("numbers are short", () => {
  assert.equal(number(0.1234, "%"), "12.3%");
  assert.equal(number(0.0012, "%"), "0.12%");
  assert.equal(number(0.000012, "%"), "0.001%");
  assert.equal(number(41.84, "×"), "41.8×");
  assert.equal(number(10, "×"), "10×");
  assert.equal(number(0, "×"), "0×");
});

test("an outline goes once around what is inside", () => {
  const values = new Uint8Array(8 * 8);
  for (let y = 2; y < 6; y += 1) for (let x = 3; x < 6; x += 1) values[y * 8 + x] = 255;
  const pieces = outline(values, 8, 8, 127.5);
  let around = 0;
  for (let i = 0; i < pieces.length; i += 4) {
    around += Math.hypot(pieces[i] - pieces[i + 2], pieces[i + 1] - pieces[i + 3]);
    assert.ok(pieces[i] >= 3 / 8 - 1e-6 && pieces[i] <= 6 / 8 + 1e-6);
    assert.ok(pieces[i + 1] >= 2 / 8 - 1e-6 && pieces[i + 1] <= 6 / 8 + 1e-6);
  }
  assert.ok(Math.abs(around - (2 * (4 + 3)) / 8) < 0.5);
  assert.equal(outline(new Uint8Array(64), 8, 8, 127.5).length, 0);
});

test("a mask's PNG holds its values in every channel", async () => {
  const file = Buffer.from(await (await maskPng([0, 0.5, 1, 0.25], 2, 2)).arrayBuffer());
  assert.equal(file.subarray(1, 4).toString(), "PNG");
  assert.deepEqual([file.readUInt32BE(16), file.readUInt32BE(20)], [2, 2]);
  const at = file.indexOf("IDAT");
  const rows = inflateSync(file.subarray(at + 4, at + 4 + file.readUInt32BE(at - 4)));
  assert.deepEqual(
    [...rows],
    [0, 0, 0, 0, 255, 128, 128, 128, 127, 0, 255, 255, 255, 0, 64, 64, 64, 191],
  );
});

test("what is no payload is refused in words", () => {
  const refused = (bytes, words) =>
    assert.throws(
      () => parsePayload(bytes.buffer),
      (error) => error instanceof PayloadError && words.test(error.message),
    );
  refused(new Uint8Array(4), /not an attribution file/);
  refused(new TextEncoder().encode("<html>not found</html>"), /not an attribution file/);
  const header = new TextEncoder().encode('{"format":"i2am.viewer/9","arrays":{}}');
  const file = new Uint8Array(12 + header.length);
  file.set(new TextEncoder().encode("I2AMVIEW"));
  new DataView(file.buffer).setUint32(8, header.length, true);
  file.set(header, 12);
  refused(file, /reads i2am.viewer\/1, but the server sent i2am.viewer\/9/);
  refused(file.slice(0, 20), /cut short/);
});
