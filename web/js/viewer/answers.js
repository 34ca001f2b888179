// @ts-check
/** A state and a payload → what to paint. Independent of the page; computes nothing twice. */

import { outline } from "../drawing/paint.js";
import { cellAt } from "../maps/grid.js";
import { matchGrids, pointMap, rangeOf, selectMaps } from "../maps/maps.js";
import { Memo } from "../maps/memo.js";
import { colorTable } from "../maps/payload.js";
import { rankAt, wordGrid, wordMaps } from "../maps/words.js";
import { fit } from "./state.js";

/** @typedef {import("../maps/payload.js").Header} Header */
/** @typedef {import("../maps/payload.js").Payload} Payload */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Fitted} Fitted */
/** @typedef {import("./state.js").Pin} Pin */
/** @typedef {import("./state.js").SideName} SideName */
/** @typedef {import("../maps/maps.js").Maps} Maps */
/** @typedef {import("../maps/grid.js").Grid} Grid */
/** @typedef {import("./panel.js").Layer} Layer */
/** @typedef {import("./panel.js").Look} Look */
/** @typedef {import("../maps/imacs.js").Mask} Mask */

/**
 * @typedef {object} Answer
 * @property {Fitted} choice the state, fitted to this payload
 * @property {Maps | null} maps of the chosen level, or of the words if one is chosen; null where
 *   they were not recorded
 * @property {number} index of the map that is shown
 * @property {Pin | null} asked the place asked about, if any
 * @property {SideName} over the picture that the shown map lies over
 * @property {Record<SideName, Layer | null>} layers what is painted over each picture
 * @property {Look} look
 * @property {Record<SideName, Grid> | null} grids the cells that places are resolved to
 * @property {Record<SideName, boolean>} canAsk whether places can be asked about
 * @property {import("../maps/words.js").Ranked[]} ranked words and references at the place of the
 *   result that is asked about; none without words or place
 */

export class Answers {
  #payload;
  #memo = new Memo();

  /** @param {Payload} payload */
  constructor(payload) {
    this.#payload = payload;
  }

  /** @returns {Header} */
  get header() {
    return this.#payload.header;
  }

  /**
   * @param {State} state
   * @param {Pin | null} hovered takes precedence over the pin
   * @returns {Answer}
   */
  of(state, hovered) {
    const { header } = this.#payload;
    const choice = fit(state, header);
    const matches = this.#matches(choice);
    const grids = matches ?? this.#wordGrids();
    const maps = choice.word === null ? this.#maps(choice) : this.#words(choice);
    const index = Math.min(choice.word ?? choice.map, (maps?.values.length ?? 1) - 1);
    const place = grids ? (hovered ?? choice.pin) : null;
    const point = matches && place && this.#point(choice, place);
    const over = choice.direction === "r2g" || choice.word !== null ? "result" : "reference";
    /** @type {Record<SideName, Layer | null>} */
    const layers = { result: null, reference: null };
    if (maps) layers[over] = layerOf(maps, index, choice.scale);
    // The paper's preset does not cover point maps: they keep the chosen scale.
    if (place && matches) layers[otherSide(place.side)] = point && layerOf(point, 0, state.scale);
    return {
      choice,
      maps,
      index,
      asked: point && place,
      over: point && place ? otherSide(place.side) : over,
      layers,
      look: this.#look(choice),
      grids,
      canAsk: {
        result: grids !== null,
        reference: matches !== null && header.references[choice.reference].has_places,
      },
      ranked: place?.side === "result" ? this.#ranked(choice, place.place) : [],
    };
  }

  /**
   * The mask that was given for a picture, or null.
   *
   * @param {SideName} side
   * @param {Fitted} choice
   * @returns {Mask | null}
   */
  mask(side, choice) {
    const name = side === "result" ? "mask" : `reference_mask.${choice.reference}`;
    const table = this.#payload.tables.get(name);
    if (!table) return null;
    const [count, height, width] = table.shape;
    const start = Math.min(choice.item, count - 1) * height * width;
    const data = /** @type {Uint8Array} */ (table.data).subarray(start, start + height * width);
    return { data, height, width };
  }

  /**
   * @param {SideName} side
   * @param {Fitted} choice
   */
  maskOutline(side, choice) {
    return this.#memo.get(`mask ${side}`, [choice.item, choice.reference], () => {
      const mask = this.mask(side, choice);
      return mask && outline(mask.data, mask.height, mask.width, 127.5);
    });
  }

  /** @param {Fitted} choice */
  #maps(choice) {
    const { item, reference, definition, direction, level, steps, layers, head, frame } = choice;
    const { weight, preset } = choice;
    const which = [item, reference, definition, direction, level, steps, layers, head, frame];
    return this.#memo.get("maps", [...which, weight, preset], () =>
      selectMaps(this.#payload, choice),
    );
  }

  /** @param {Fitted} choice */
  #matches({ reference }) {
    const { header } = this.#payload;
    return this.#memo.get("grids", [reference], () => matchGrids(header, reference));
  }

  /** The cells of the result in which words are ranked; the other side has none to ask about. */
  #wordGrids() {
    return this.#memo.get("word grids", [], () => {
      const grid = wordGrid(this.#payload.header);
      return grid && { result: grid, reference: grid };
    });
  }

  /** @param {Fitted} choice */
  #words({ item }) {
    return this.#memo.get("words", [item], () => wordMaps(this.#payload, item));
  }

  /**
   * @param {Fitted} choice
   * @param {import("../maps/grid.js").Place} place
   */
  #ranked(choice, place) {
    const { item } = choice;
    return this.#memo.get("ranked", [item, place], () =>
      rankAt(this.#payload, this.#words(choice), item, place),
    );
  }

  /**
   * @param {Fitted} choice
   * @param {Pin} asked
   */
  #point(choice, { side, place }) {
    const grids = this.#matches(choice);
    if (!grids) return null;
    // All points in a cell give the same map.
    const cell = place.kind === "point" ? cellAt(grids[side], place.x, place.y) : place;
    const facts = [choice.item, choice.reference, choice.definition, side, cell];
    return this.#memo.get("point", facts, () => pointMap(this.#payload, choice, side, place));
  }

  /**
   * @param {Fitted} choice
   * @returns {Look}
   */
  #look({ colormap, opacity, threshold }) {
    return this.#memo.get("look", [colormap, opacity, threshold], () => ({
      table: colorTable(this.#payload.header, colormap),
      opacity,
      threshold,
    }));
  }
}

/**
 * @param {SideName} side
 * @returns {SideName}
 */
export function otherSide(side) {
  return side === "result" ? "reference" : "result";
}

/**
 * @param {Maps} maps
 * @param {number} index
 * @param {import("../maps/maps.js").Scale} scale
 * @returns {Layer}
 */
function layerOf(maps, index, scale) {
  const range = rangeOf(maps, index, scale);
  const { values, grid, unit } = maps;
  return { values: values[index], grid, unit, range, scale };
}
