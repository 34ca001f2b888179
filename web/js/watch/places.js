// @ts-check
/** Free places on a graph, so that added nodes cover nothing. */

const TITLE = 30; // pixels above a node
const GAP = 30;
const STEP = 40;
const FARTHEST = 6000;

/** @typedef {[number, number]} Pair */

/**
 * The free place nearest to the wanted one, for the top left corner of a node.
 *
 * @param {any} graph
 * @param {Pair} wish
 * @param {ArrayLike<number>} size
 * @param {any} [itself] a node that may be covered: the one being placed
 * @returns {Pair}
 */
export function freePlace(graph, wish, size, itself) {
  const taken = graph.nodes
    .filter((/** @type {any} */ node) => node !== itself)
    .map((/** @type {any} */ { pos, size: [width, height], flags }) => [
      ...[pos[0] - GAP, pos[1] - TITLE - GAP],
      ...[pos[0] + width + GAP, pos[1] + (flags?.collapsed ? 0 : height) + GAP],
    ]);
  const free = (/** @type {number} */ x, /** @type {number} */ y) =>
    taken.every(
      (/** @type {number[]} */ [left, top, right, bottom]) =>
        x >= right || x + size[0] <= left || y - TITLE >= bottom || y + size[1] <= top,
    );
  for (let away = 0; away <= FARTHEST; away += STEP) {
    for (const [x, y] of ring(wish, away)) if (free(x, y)) return [x, y];
  }
  return wish;
}

/** The places at this distance, right and below first. @param {Pair} middle @param {number} away */
function* ring([x, y], away) {
  for (let along = 0; along <= away; along += STEP) {
    yield [x + away, y + along];
    yield [x + along, y + away];
    yield [x + away, y - along];
    yield [x + along, y - away];
    yield [x - along, y + away];
    yield [x - along, y - away];
    yield [x - away, y + along];
    yield [x - away, y - along];
  }
}
