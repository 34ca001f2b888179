// @ts-check
/**
 * A choice of what to look at → maps in display numbers.
 *
 * Same arithmetic as i2am/maps/levels.py, i2am/maps/points.py and i2am/display/render.py.
 */

import { area, cellAt, coverage, makeGrid } from "./grid.js";
import { addOfficial, layerFactors, layersOf, officialOrder } from "./layers.js";
import { addTo, product } from "./payload.js";

/** @typedef {import("./payload.js").Payload} Payload */
/** @typedef {import("./payload.js").Header} Header */
/** @typedef {import("./grid.js").Grid} Grid */
/** @typedef {import("./grid.js").Place} Place */

/**
 * What to look at. A range is the numbers of the first and last row sent; null means all of them.
 *
 * @typedef {object} Choice
 * @property {number} item
 * @property {number} reference
 * @property {"paper" | "model" | "effect"} definition
 * @property {"r2g" | "g2r"} direction
 * @property {"unified" | "time" | "layer" | "head"} level
 * @property {[number, number] | null} steps
 * @property {[number, number] | null} layers
 * @property {number | null} head null: the mean of all
 * @property {number | null} frame of a video; null: the mean of all
 * @property {"mass" | "equal" | "value"} weight how much each layer counts
 * @property {"as chosen" | "paper"} preset
 */

/**
 * Maps over one picture, in display numbers: "%" is a place's share of attention, 0 to 1; "×" is a
 * multiple of an even spread.
 *
 * @typedef {object} Maps
 * @property {Float32Array[]} values
 * @property {string[]} labels
 * @property {Grid} grid
 * @property {"%" | "×"} unit
 */

/** @typedef {"per map" | "shared" | "absolute" | "paper" | "paper, complement"} Scale */

const FLAT = 1e-3; // relative to a map's level: a narrower range is rounding noise
const ABSOLUTE_HIGH = 4; // the top of the absolute scale, as a multiple of an even spread

/**
 * The maps of the chosen level, or null where they were not sent.
 *
 * @param {Payload} payload
 * @param {Choice} choice
 * @returns {Maps | null}
 */
export function selectMaps(payload, choice) {
  const { header, tables } = payload;
  const { definition, direction, reference, level } = choice;
  const byHead = level === "head" || choice.head !== null;
  const table = tables.get(
    `${definition}.${direction}.${reference}.${byHead ? "layer_head" : "step_layer"}`,
  );
  if (!table) return null;
  const side = direction === "r2g" ? header.generated : header.references[reference];
  const grid = makeGrid(side.grid, side.covered);
  const size = product(table.shape.slice(3));
  const parts = partsOf(header, choice, byHead);
  const factors = layerFactors(header, table, choice, byHead);
  const official = officialOrder(payload, choice);
  const values = parts.map(({ entries }) => {
    const sum = new Float32Array(size);
    const weight = entries.reduce((total, entry) => total + entry[2], 0);
    for (const { layer, own } of ofLayers(entries, byHead)) {
      const matrices = official[layer];
      const into = matrices ? new Float32Array(size) : sum;
      for (const [row, column, times] of own) {
        if (!times) continue;
        addTo(into, table, [choice.item, row, column], (factors[layer] * times) / weight);
      }
      if (matrices) addOfficial(sum, into, matrices);
    }
    return ofFrame(sum, area(grid), choice.frame);
  });
  const unit = choice.weight === "mass" ? unitOf(definition, direction) : "×";
  return { values: display(values, unit), labels: parts.map(({ label }) => label), grid, unit };
}

/** @typedef {[number, number, number]} Entry row and column of a table, and how much it weighs */

/**
 * Groups entries by layer: all steps of a layer together, each head on its own.
 *
 * @param {Entry[]} entries
 * @param {boolean} byHead
 * @returns {{layer: number, own: Entry[]}[]}
 */
function ofLayers(entries, byHead) {
  if (byHead) return entries.map((entry) => ({ layer: entry[0], own: [entry] }));
  const layers = [...new Set(entries.map(([, column]) => column))];
  return layers.map((layer) => ({
    layer,
    own: entries.filter(([, column]) => column === layer),
  }));
}

/**
 * The entries that each map of a level is the mean of.
 *
 * @param {Header} header
 * @param {Choice} choice
 * @param {boolean} byHead
 * @returns {{label: string, entries: Entry[]}[]}
 */
function partsOf(header, choice, byHead) {
  const layers = layersOf(header, choice);
  /** @type {(rows: number[], columns: number[]) => [number, number, number][]} */
  const pairs = (rows, columns) =>
    rows.flatMap((row) =>
      columns.map(
        (column) =>
          /** @type {[number, number, number]} */ ([
            row,
            column,
            byHead
              ? column < header.heads[row]
                ? header.layers[row].count
                : 0
              : header.seen[row][column],
          ]),
      ),
    );
  if (byHead) {
    const heads = choice.head === null ? within(null, Math.max(...header.heads)) : [choice.head];
    if (choice.level === "head") {
      return within(null, Math.max(...header.heads)).map((head) => ({
        label: `head ${head}`,
        entries: pairs(layers, [head]),
      }));
    }
    if (choice.level === "layer") {
      return layers.map((layer) => ({
        label: header.layers[layer].label,
        entries: pairs([layer], heads),
      }));
    }
    return [{ label: "", entries: pairs(layers, heads) }];
  }
  const steps = within(choice.steps, header.steps.length);
  if (choice.level === "time") {
    return steps.map((step) => ({
      label: stepName(header.steps[step].label),
      entries: pairs([step], layers),
    }));
  }
  if (choice.level === "layer") {
    return layers.map((layer) => ({
      label: header.layers[layer].label,
      entries: pairs(steps, [layer]),
    }));
  }
  return [{ label: "", entries: pairs(steps, layers) }];
}

/** @param {string} label */
function stepName(label) {
  return `${label.includes("-") ? "steps" : "step"} ${label}`;
}

/**
 * @param {[number, number] | null} range
 * @param {number} count
 */
export function within(range, count) {
  const [first, last] = range ?? [0, count - 1];
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

/**
 * One frame of a video's map, or the sum of all frames; like `_of_frames` in i2am/maps/levels.py.
 *
 * @param {Float32Array} values
 * @param {number} cells of one frame
 * @param {number | null} frame
 */
function ofFrame(values, cells, frame) {
  const frames = values.length / cells;
  if (frames === 1) return values;
  if (frame !== null) {
    return values.slice(frame * cells, (frame + 1) * cells).map((value) => value * frames);
  }
  const sum = new Float32Array(cells);
  for (let index = 0; index < values.length; index += 1) sum[index % cells] += values[index];
  return sum;
}

/**
 * What a place attended to, or what attended to it; null where no correspondence was sent.
 *
 * @param {Payload} payload
 * @param {Choice} choice only its item, reference and definition are used
 * @param {"result" | "reference"} side the picture the place is on; the map is over the other
 * @param {Place} place
 * @returns {Maps | null}
 */
export function pointMap({ header, tables }, choice, side, place) {
  const { item, reference, definition } = choice;
  const grids = matchGrids(header, reference);
  const kind = definition === "paper" ? "" : `${definition}.`;
  const table = tables.get(`correspondence.${kind}${reference}`);
  if (!grids || !table) return null;
  const inside = weightsOf(side === "result" ? grids.result : grids.reference, place);
  const direction = side === "result" ? "g2r" : "r2g";
  const grid = side === "result" ? grids.reference : grids.result;
  const values = new Float32Array(area(grid));
  const [rows, columns] = [area(grids.result), area(grids.reference)];
  if (side === "result") {
    const total = inside.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [cell, weight] of inside) {
      const indices = [item, Math.floor(cell / grids.result.width), cell % grids.result.width];
      addTo(values, table, indices, weight / total);
    }
  } else {
    const { data, scale } = table;
    const [only, each] = typeof scale === "number" ? [scale, []] : [1, scale];
    for (let row = 0; row < rows; row += 1) {
      const from = item * rows + row;
      let sum = 0;
      for (const [cell, weight] of inside) sum += weight * data[from * columns + cell];
      values[row] = (sum * (each[from] ?? only)) / rows;
    }
  }
  const unit = unitOf(definition, direction);
  return { values: display([values], unit), labels: [""], grid, unit };
}

/**
 * The grids of both sides of a correspondence, or null if there is none.
 *
 * @param {Header} header
 * @param {number} reference
 */
export function matchGrids(header, reference) {
  const facts = header.correspondence[reference];
  if (!facts) return null;
  return {
    result: makeGrid(facts.rows, facts.rows_covered),
    reference: makeGrid(facts.columns, facts.columns_covered),
  };
}

/**
 * The cells a place covers, and how much of each.
 *
 * @param {Grid} grid
 * @param {Place} place
 * @returns {[number, number][]}
 */
function weightsOf(grid, place) {
  if (place.kind === "point") return [[cellAt(grid, place.x, place.y), 1]];
  const all = [...coverage(grid, place).entries()];
  return all.filter(([, weight]) => weight > 0);
}

/**
 * @param {"paper" | "model" | "effect"} definition
 * @param {"r2g" | "g2r"} direction
 */
export function unitOf(definition, direction) {
  return definition === "model" && direction === "r2g" ? "%" : "×";
}

/**
 * Like `display_values` in i2am/display/render.py, for one batch item's maps, which it overwrites.
 *
 * @param {Float32Array[]} maps
 * @param {"%" | "×"} unit
 */
export function display(maps, unit) {
  const cells = maps[0].length;
  let factor = cells;
  if (unit === "×") {
    const sum = maps.reduce((total, map) => total + map.reduce((all, value) => all + value, 0), 0);
    factor = sum > 0 ? (cells * maps.length) / sum : 1;
  }
  for (const map of maps) for (let i = 0; i < cells; i += 1) map[i] *= factor;
  return maps;
}

/**
 * The (low, high) range to paint one of the maps with; like `value_range` in
 * i2am/display/render.py, over cells.
 *
 * @param {Maps} maps
 * @param {number} index
 * @param {Scale} scale
 * @returns {[number, number]}
 */
export function rangeOf(maps, index, scale) {
  if (scale === "paper" || scale === "paper, complement") return [0, 1]; // as `paperCut` gives
  if (scale === "absolute") return [0, maps.unit === "%" ? 1 : ABSOLUTE_HIGH];
  return extent(scale === "shared" ? maps.values : [maps.values[index]]);
}

/**
 * The lowest and the highest value.
 *
 * @param {Float32Array[]} maps
 * @returns {[number, number]}
 */
export function extent(maps) {
  let [low, high] = [Infinity, -Infinity];
  for (const map of maps) {
    for (const value of map) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return [low, high];
}

/**
 * How values become 0 to 1, before clamping: (value - low) × factor. A flat range has the factor 0:
 * all of it is drawn as low.
 *
 * @param {number} low
 * @param {number} high
 */
export function stretch(low, high) {
  return high - low <= FLAT * Math.abs(high) ? 0 : 1 / (high - low);
}

/**
 * A value with its unit, in few digits: "0.23×", "12.5%".
 *
 * @param {number} value
 * @param {"%" | "×" | ""} unit
 */
export function number(value, unit) {
  const shown = unit === "%" ? 100 * value : value;
  const short = shown.toFixed(Math.abs(shown) >= 10 ? 1 : 2).replace(/\.?0+$/, "");
  return `${short === "0" || short === "-0" ? `${Number(shown.toPrecision(1))}` : short}${unit}`;
}
