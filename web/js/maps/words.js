// @ts-check
/**
 * The words of a prompt: their maps, and who is attended to most at a place.
 *
 * Same arithmetic as i2am/maps/words.py and i2am/scores/words.py, over all steps.
 */

import { area, cellAt, coverage, makeGrid } from "./grid.js";
import { addTo } from "./payload.js";

/** @typedef {import("./payload.js").Payload} Payload */
/** @typedef {import("./payload.js").Header} Header */
/** @typedef {import("./grid.js").Grid} Grid */
/** @typedef {import("./grid.js").Place} Place */
/** @typedef {import("./maps.js").Maps} Maps */

/** @typedef {{name: string, share: number}} Ranked a word or reference and its share, 0 to 1 */

/**
 * The grid that maps of words lie on; null without words.
 *
 * @param {Header} header
 * @returns {Grid | null}
 */
export function wordGrid(header) {
  const facts = header.word_grid;
  return facts ? makeGrid(facts.grid, facts.covered) : null;
}

/**
 * The map of each word; null without words.
 *
 * @param {Payload} payload
 * @param {number} item
 * @returns {Maps | null}
 */
export function wordMaps({ header, tables }, item) {
  const [grid, table] = [wordGrid(header), tables.get("words")];
  if (!grid || !table) return null;
  const values = header.words.map((_, word) => {
    const map = new Float32Array(area(grid));
    addTo(map, table, [item, word], 1);
    return map;
  });
  return { values, labels: header.words.map(({ text }) => text), grid, unit: "%" };
}

/**
 * Words and references by their share of the attention at a place of the result, the largest
 * first; words alone where these have a softmax of their own.
 *
 * @param {Payload} payload
 * @param {Maps | null} maps of the words of this item, from `wordMaps`
 * @param {number} item
 * @param {Place} place
 * @returns {Ranked[]}
 */
export function rankAt({ header, tables }, maps, item, place) {
  if (!maps) return [];
  const ranked = maps.values.map((map, word) => ({
    name: `“${header.words[word].text}”`,
    share: meanAt(map, maps.grid, place),
  }));
  const table = tables.get("share.map");
  if (table && !header.words_apart) {
    const { grid: sides, covered, frames } = header.generated;
    const grid = makeGrid(sides, covered);
    header.references.forEach(({ label, absent }, r) => {
      if (absent) return;
      const whole = new Float32Array(area(grid) * frames);
      addTo(whole, table, [item, 2 + r], 1 / frames);
      const mean = new Float32Array(area(grid));
      for (let i = 0; i < whole.length; i += 1) mean[i % mean.length] += whole[i];
      ranked.push({ name: label, share: meanAt(mean, grid, place) });
    });
  }
  return ranked.sort((one, other) => other.share - one.share);
}

/**
 * @param {Float32Array} values
 * @param {Grid} grid
 * @param {Place} place
 */
function meanAt(values, grid, place) {
  if (place.kind === "point") return values[cellAt(grid, place.x, place.y)];
  let [sum, total] = [0, 0];
  coverage(grid, place).forEach((weight, cell) => {
    sum += weight * values[cell];
    total += weight;
  });
  return total ? sum / total : 0;
}
