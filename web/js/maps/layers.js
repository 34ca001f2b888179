// @ts-check
/**
 * How layers are averaged: which ones, how much each counts, and how each reaches the common grid.
 *
 * Same arithmetic as `LayerWeight`, `Order` and `paper_selection` in i2am/maps/levels.py.
 */

import { product, scaleAt } from "./payload.js";

/** @typedef {import("./payload.js").Header} Header */
/** @typedef {import("./payload.js").Payload} Payload */
/** @typedef {import("./payload.js").Table} Table */
/** @typedef {import("./maps.js").Choice} Choice */

/** @typedef {{down: Float32Array, across: Float32Array}} Matrices square, row by row */

/**
 * The layers to average. The paper's preset leaves out a UNet's middle unless layers were picked.
 *
 * @param {Header} header
 * @param {Choice} choice
 * @returns {number[]}
 */
export function layersOf({ layers }, choice) {
  const all = layers.map((_, layer) => layer);
  if (choice.layers) return all.slice(choice.layers[0], choice.layers[1] + 1);
  const kept = all.filter((layer) => layers[layer].block !== "middle");
  return choice.preset === "paper" && kept.length ? kept : all;
}

/**
 * The factor of each layer's maps.
 *
 * @param {Header} header
 * @param {Table} table
 * @param {Choice} choice
 * @param {boolean} byHead whether the table's rows are layers and its columns heads
 * @returns {number[]}
 */
export function layerFactors(header, table, choice, byHead) {
  const { layers } = header;
  if (choice.weight === "mass") return layers.map(() => 1);
  if (choice.weight === "equal") {
    const masses = layers.map((_, layer) => massOf(header, table, choice.item, layer, byHead));
    return masses.map((mass) => (mass > 0 ? 1 / mass : 0));
  }
  if (!onOwnGrids(header, choice)) return layers.map(() => 1);
  const picked = layersOf(header, choice);
  const count = picked.reduce((sum, layer) => sum + layers[layer].count, 0);
  const all = picked.reduce((sum, layer) => sum + layers[layer].count / layers[layer].tokens, 0);
  return layers.map(({ tokens }) => count / all / tokens);
}

/**
 * A layer's attention mass, over all steps and heads.
 *
 * @param {Header} header
 * @param {Table} table
 * @param {number} item
 * @param {number} layer
 * @param {boolean} byHead
 */
function massOf(header, table, item, layer, byHead) {
  const entries = byHead
    ? Array.from({ length: header.heads[layer] }, (_, head) => [layer, head, 1])
    : header.seen.map((row, step) => [step, layer, row[layer]]);
  const { data, shape } = table;
  const size = product(shape.slice(3));
  let [mass, count] = [0, 0];
  for (const [row, column, times] of entries) {
    if (!times) continue;
    const start = ((item * shape[1] + row) * shape[2] + column) * size;
    let sum = 0;
    for (let i = start; i < start + size; i += 1) sum += data[i];
    mass += times * sum * scaleAt(table, [item, row, column]);
    count += times;
  }
  return mass / Math.max(count, 1);
}

/**
 * The authors' resizing of each layer's maps; null for a layer already on the common grid.
 *
 * @param {Payload} payload
 * @param {Choice} choice
 * @returns {(Matrices | null)[]}
 */
export function officialOrder({ header, tables }, choice) {
  return header.official.map((number) => {
    if (choice.preset !== "paper" || number === null || !onOwnGrids(header, choice)) return null;
    const [down, across] = ["down", "across"].map(
      (side) => /** @type {Float32Array} */ (tables.get(`official.${number}.${side}`)?.data),
    );
    return { down, across };
  });
}

/**
 * Whether layers have grids of their own. They do only over the result: a reference has the same
 * tokens in every layer.
 *
 * @param {Header} header
 * @param {Choice} choice
 */
function onOwnGrids(header, choice) {
  return choice.direction === "r2g" || header.within;
}

/**
 * Adds a layer's map to a sum: down @ map @ across.T of each frame, clamped at zero.
 *
 * @param {Float32Array} sum
 * @param {Float32Array} map
 * @param {Matrices} matrices
 */
export function addOfficial(sum, map, { down, across }) {
  const [height, width] = [Math.sqrt(down.length), Math.sqrt(across.length)];
  const lines = new Float32Array(width);
  for (let frame = 0; frame < map.length; frame += height * width) {
    for (let y = 0; y < height; y += 1) {
      lines.fill(0);
      for (let row = 0; row < height; row += 1) {
        const part = down[y * height + row];
        if (!part) continue;
        for (let x = 0; x < width; x += 1) lines[x] += part * map[frame + row * width + x];
      }
      for (let x = 0; x < width; x += 1) {
        let value = 0;
        for (let column = 0; column < width; column += 1) {
          value += across[x * width + column] * lines[column];
        }
        sum[frame + y * width + x] += Math.max(value, 0);
      }
    }
  }
}
