// @ts-check
/** The pictures below the maps: which one, whether it has loaded, and its size on screen. */

/** @typedef {import("../maps/payload.js").Header} Header */
/** @typedef {import("../maps/payload.js").Side} Side */
/** @typedef {import("../viewer/state.js").Fitted} Fitted */
/** @typedef {import("../viewer/viewer.js").File} File */
/** @typedef {import("../viewer/viewer.js").Output} Output */

const GAP = 12; // CSS pixels between two pictures, as in the CSS
const AROUND = 52; // CSS pixels of height for the caption and the colour bar
const LEAST_HEIGHT = 24;

/** Pictures by their address, each fetched once. */
export class Pictures {
  /** @type {Map<string, HTMLImageElement | null>} null: loading, or gone */
  #known = new Map();
  #urlOf;
  #come;
  #gone;

  /**
   * @param {(file: File) => string} urlOf
   * @param {() => void} come called when a picture has loaded
   * @param {() => void} gone called when a picture cannot be loaded
   */
  constructor(urlOf, come, gone) {
    this.#urlOf = urlOf;
    this.#come = come;
    this.#gone = gone;
  }

  /**
   * @param {File | undefined} file
   * @returns {HTMLImageElement | null} null while it loads, and if it is gone
   */
  get(file) {
    if (!file) return null;
    const url = this.#urlOf(file);
    const known = this.#known.get(url);
    if (known !== undefined) return known;
    const all = this.#known;
    all.set(url, null);
    const image = new Image();
    image.src = url;
    image.decode().then(
      () => {
        if (this.#known !== all) return;
        all.set(url, image);
        this.#come();
      },
      () => {
        if (this.#known === all) this.#gone();
      },
    );
    return null;
  }

  /** Forgets all pictures, including those still loading. */
  clear() {
    this.#known = new Map();
  }
}

/**
 * The files of the pictures for a choice.
 *
 * @param {Header} header
 * @param {Output} output
 * @param {Fitted} choice
 * @returns {{result: File | undefined, reference: File | undefined}}
 */
export function picturesOf(header, output, { item, reference, frame }) {
  const side = header.references[reference];
  const files = output.references[reference] ?? [];
  const own = files.length > 1 ? item : 0; // one per item, or one for all
  return {
    result: pictureOf(output.result, header.batch, item, header.generated, frame),
    reference:
      side.frames > 1
        ? // A reference video is shared by all items; the result itself is not.
          pictureOf(files, header.within ? header.batch : 1, header.within ? own : 0, side, frame)
        : files[Math.min(own, files.length - 1)],
  };
}

/**
 * For a video, the middle picture of a latent frame; otherwise the item's picture.
 *
 * @param {File[]} files of all items, one after the other
 * @param {number} batch
 * @param {number} item
 * @param {Side} side
 * @param {number | null} frame
 * @returns {File | undefined}
 */
function pictureOf(files, batch, item, { frame_of }, frame) {
  const each = Math.floor(files.length / batch);
  const own = files.slice(item * each, (item + 1) * each);
  const shown = frame_of ? own.filter((_, n) => frame === null || frame_of[n] === frame) : own;
  return shown[Math.floor(shown.length / 2)];
}

/**
 * The largest size of one picture in the available room.
 *
 * @param {{width: number, height: number}} room in CSS pixels
 * @param {[number, number]} size its height and width
 * @returns {{height: number, widths: number[]}}
 */
export function alone(room, [tall, wide]) {
  const fitting = Math.min(room.height - AROUND, (room.width * tall) / wide);
  const height = Math.max(Math.floor(fitting), LEAST_HEIGHT);
  return { height, widths: [Math.floor((height * wide) / tall)] };
}

/**
 * Arranges two pictures of equal height in the available room: side by side or stacked, whichever
 * shows them larger.
 *
 * @param {{width: number, height: number}} room in CSS pixels
 * @param {[number, number][]} sizes the (height, width) of both
 * @returns {{stacked: boolean, height: number, widths: number[]}}
 */
export function arranged(room, sizes) {
  const [a, b] = sizes.map(([height, width]) => width / height);
  const beside = Math.min((room.width - GAP) / (a + b), room.height - AROUND);
  const stacked = Math.min((room.height - GAP - 2 * AROUND) / 2, room.width / Math.max(a, b));
  const height = Math.max(Math.floor(Math.max(beside, stacked)), LEAST_HEIGHT);
  const widths = [Math.floor(height * a), Math.floor(height * b)];
  return { stacked: stacked > beside, height, widths };
}
